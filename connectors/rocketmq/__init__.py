"""Connector for Apache RocketMQ, open source, 4.4.0 to 5.x, over its remoting protocol."""

from connectors.rocketmq.connector import RocketMQConnector
from connectors.rocketmq.factory import RocketMQFactory

factory = RocketMQFactory()

__all__ = ["RocketMQConnector", "RocketMQFactory", "factory"]
