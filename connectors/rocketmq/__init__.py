"""Connector for Apache RocketMQ, open source, 4.4.0 to 5.x, over its remoting protocol."""

from connectors.rocketmq.connector import RocketMQConnector, RocketMQFactory

factory = RocketMQFactory()

__all__ = ["RocketMQConnector", "RocketMQFactory", "factory"]
