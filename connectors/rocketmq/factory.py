"""What the entry point names: settings in, a connector out."""

from __future__ import annotations

from connectors.rocketmq.connector import RocketMQConnector
from connectors.rocketmq.namespace import NamespacedConnector
from connectors.rocketmq.settings import RocketMQSettings
from replicator.core.connector import ConnectorContext


class RocketMQFactory:
    """See ``ConnectorFactory``."""

    settings_model: type[RocketMQSettings] = RocketMQSettings

    def __call__(self, settings: RocketMQSettings, context: ConnectorContext) -> RocketMQConnector:
        return (NamespacedConnector if settings.namespace else RocketMQConnector)(settings, context)
