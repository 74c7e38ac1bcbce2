"""The fake broker's answers to everything but pull and send: offsets, topics, groups, clients, locks, configuration."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from connectors.rocketmq.remoting.bodies import loads, read_properties_text
from connectors.rocketmq.remoting.codes import RequestCode, ResponseCode
from connectors.rocketmq.remoting.command import RemotingCommand
from tests.fakes.state import FakeQueue, FakeTopic, QueueKey, dump, group_config, queue_object
from tests.fakes.tcp import Connection, Handler, Refusal

if TYPE_CHECKING:
    from tests.fakes.broker import FakeBroker


def _ok(body: str = "", **fields: object) -> RemotingCommand:
    return RemotingCommand(ResponseCode.SUCCESS, {name: str(value) for name, value in fields.items()}, body.encode())


def _table(name: str, value: Any) -> RemotingCommand:
    return _ok(dump({"dataVersion": {"counter": 1, "stateVersion": 0, "timestamp": time.time_ns() // 10**6}, name: value}))


class AdminHandlers:
    """Mixed into ``FakeBroker``, whose state it reads and writes."""

    def admin_handlers(self: FakeBroker) -> dict[int, Handler]:
        handlers: dict[int, Handler] = {
            RequestCode.QUERY_CONSUMER_OFFSET: self._query_offset,
            RequestCode.UPDATE_CONSUMER_OFFSET: self._update_offset,
            RequestCode.GET_MAX_OFFSET: self._max_offset,
            RequestCode.GET_MIN_OFFSET: self._min_offset,
            RequestCode.SEARCH_OFFSET_BY_TIMESTAMP: self._search_offset,
            RequestCode.GET_EARLIEST_MSG_STORETIME: self._earliest,
            RequestCode.GET_ALL_CONSUMER_OFFSET: self._all_offsets,
            RequestCode.GET_ALL_DELAY_OFFSET: lambda command, connection: _ok(dump({"offsetTable": {}})),
            RequestCode.GET_CONSUME_STATS: self._consume_stats,
            RequestCode.UPDATE_AND_CREATE_TOPIC: self._create_topic,
            RequestCode.DELETE_TOPIC_IN_BROKER: self._delete_topic,
            RequestCode.GET_ALL_TOPIC_CONFIG: self._topic_configs,
            RequestCode.UPDATE_AND_CREATE_SUBSCRIPTIONGROUP: self._create_group,
            RequestCode.DELETE_SUBSCRIPTIONGROUP: self._delete_group,
            RequestCode.GET_ALL_SUBSCRIPTIONGROUP_CONFIG: self._group_configs,
            RequestCode.GET_BROKER_CONFIG: self._get_config,
            RequestCode.UPDATE_BROKER_CONFIG: self._update_config,
            RequestCode.GET_BROKER_RUNTIME_INFO: self._runtime_info,
            RequestCode.HEART_BEAT: self._heartbeat,
            RequestCode.UNREGISTER_CLIENT: self._unregister,
            RequestCode.GET_CONSUMER_LIST_BY_GROUP: self._consumer_list,
            RequestCode.GET_CONSUMER_CONNECTION_LIST: self._consumer_connections,
            RequestCode.GET_PRODUCER_CONNECTION_LIST: self._producer_connections,
            RequestCode.QUERY_TOPIC_CONSUME_BY_WHO: self._groups_by_topic,
            RequestCode.LOCK_BATCH_MQ: self._lock,
            RequestCode.UNLOCK_BATCH_MQ: self._unlock,
        }
        if self.modern:
            handlers[RequestCode.GET_TOPIC_CONFIG] = self._topic_config
            handlers[RequestCode.INVOKE_BROKER_TO_RESET_OFFSET] = self._reset_offset
        return handlers

    # Offsets

    def _any_queue(self: FakeBroker, fields: dict[str, str]) -> FakeQueue:
        # The real one makes an empty queue for whatever is asked; so does this, but outside of the topic's table.
        topic = self.topics.get(fields["topic"])
        return topic.queue(int(fields["queueId"])) if topic else FakeQueue()

    def _query_offset(self: FakeBroker, command: RemotingCommand, connection: Connection) -> RemotingCommand:
        fields = command.ext_fields
        table = self.consumer_offsets.get((fields["topic"], fields["consumerGroup"]), {})
        offset = table.get(int(fields["queueId"]))
        if offset is None and self._any_queue(fields).min_offset == 0:
            offset = None if self.modern and fields.get("setZeroIfNotFound") == "false" else 0
        if offset is None:
            raise Refusal(ResponseCode.QUERY_NOT_FOUND, "Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first")
        return _ok(offset=offset)

    def _update_offset(self: FakeBroker, command: RemotingCommand, connection: Connection) -> RemotingCommand:
        fields = command.ext_fields
        topic, group = fields["topic"], fields["consumerGroup"]
        if self.modern and group not in self.groups:
            raise Refusal(ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST, f"Group {group} not exist!")
        if self.modern and topic not in self.topics:
            raise Refusal(ResponseCode.TOPIC_NOT_EXIST, f"Topic {topic} not exist!")
        self.consumer_offsets.setdefault((topic, group), {})[int(fields["queueId"])] = int(fields["commitOffset"])
        return _ok()

    def _max_offset(self: FakeBroker, command: RemotingCommand, connection: Connection) -> RemotingCommand:
        return _ok(offset=self._any_queue(command.ext_fields).max_offset)

    def _min_offset(self: FakeBroker, command: RemotingCommand, connection: Connection) -> RemotingCommand:
        return _ok(offset=self._any_queue(command.ext_fields).min_offset)

    def _search_offset(self: FakeBroker, command: RemotingCommand, connection: Connection) -> RemotingCommand:
        fields = command.ext_fields
        upper = self.modern and fields.get("boundaryType") == "UPPER"
        return _ok(offset=self._any_queue(fields).offset_at(int(fields["timestamp"]), upper))

    def _earliest(self: FakeBroker, command: RemotingCommand, connection: Connection) -> RemotingCommand:
        messages = self._any_queue(command.ext_fields).messages
        return _ok(timestamp=messages[0].store_timestamp_ms if messages else -1)

    def _all_offsets(self: FakeBroker, command: RemotingCommand, connection: Connection) -> RemotingCommand:
        table = {f"{topic}@{group}": offsets for (topic, group), offsets in self.consumer_offsets.items()}
        return _table("offsetTable", table)

    def _consume_stats(self: FakeBroker, command: RemotingCommand, connection: Connection) -> RemotingCommand:
        wanted, group = command.ext_fields.get("topic"), command.ext_fields["consumerGroup"]
        table: dict[QueueKey, dict[str, int]] = {}
        for (topic_name, name), offsets in self.consumer_offsets.items():
            topic = self.topics.get(topic_name)
            if name != group or topic is None or wanted not in (None, topic_name):
                continue
            for queue_id in range(topic.read_queue_count):
                table[topic_name, self.name, queue_id] = {
                    "brokerOffset": topic.queue(queue_id).max_offset,
                    "consumerOffset": offsets.get(queue_id, 0),
                    "lastTimestamp": 0,
                    "pullOffset": 0,
                }
        return _ok(dump({"consumeTps": 0.0, "offsetTable": table}))

    def _reset_offset(self: FakeBroker, command: RemotingCommand, connection: Connection) -> RemotingCommand:
        """The exact form of 5.2 and on; resets are in force at once instead of at the group's next pull."""
        fields = command.ext_fields
        topic, group, queue_id = fields["topic"], fields["group"], int(fields.get("queueId", "-1"))
        if topic not in self.topics:
            raise Refusal(ResponseCode.TOPIC_NOT_EXIST, f"Topic {topic} does not exist")
        if group not in self.groups:
            raise Refusal(ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST, f"Group {group} does not exist")
        reset: dict[QueueKey, int] = {}
        for number in range(self.topics[topic].read_queue_count) if queue_id < 0 else [queue_id]:
            queue = self.topics[topic].queue(number)
            offset = int(fields.get("offset", "-1"))
            if queue_id < 0:
                timestamp = int(fields["timestamp"])
                offset = queue.max_offset if timestamp < 0 else queue.offset_at(timestamp, False)
            if not queue.min_offset <= offset <= queue.max_offset + 1:
                raise Refusal(ResponseCode.SYSTEM_ERROR, f"Target offset {offset} not in consume queue range")
            reset[topic, self.name, number] = offset
        for (_, _, number), offset in reset.items():
            self.consumer_offsets.setdefault((topic, group), {})[number] = offset
        return _ok(dump({"offsetTable": reset}))

    # Topics and groups

    def _create_topic(self: FakeBroker, command: RemotingCommand, connection: Connection) -> RemotingCommand:
        fields = command.ext_fields
        name = fields["topic"]
        topic = self.topics.setdefault(name, FakeTopic(name, 0, 0))
        topic.read_queue_count = int(fields["readQueueNums"])
        topic.write_queue_count = int(fields["writeQueueNums"])
        topic.perm = int(fields["perm"])
        topic.order = fields.get("order") == "true"
        for change in filter(None, fields.get("attributes", "").split(",") if self.modern else []):
            key, _, value = change[1:].partition("=")
            if change.startswith("+"):
                topic.attributes[key] = value
            else:
                topic.attributes.pop(key, None)
        return _ok()

    def _delete_topic(self: FakeBroker, command: RemotingCommand, connection: Connection) -> RemotingCommand:
        name = command.ext_fields["topic"]
        self.topics.pop(name, None)
        if self.modern:
            for topic, group in [key for key in self.consumer_offsets if key[0] == name]:
                del self.consumer_offsets[topic, group]
        return _ok()

    def _topic_config(self: FakeBroker, command: RemotingCommand, connection: Connection) -> RemotingCommand:
        topic = self.topics.get(command.ext_fields["topic"])
        if topic is None:
            raise Refusal(ResponseCode.TOPIC_NOT_EXIST, "No topic in this broker")
        return _ok(dump(topic.config()))

    def _topic_configs(self: FakeBroker, command: RemotingCommand, connection: Connection) -> RemotingCommand:
        return _table("topicConfigTable", {name: topic.config() for name, topic in self.topics.items()})

    def _create_group(self: FakeBroker, command: RemotingCommand, connection: Connection) -> RemotingCommand:
        wanted = loads(command.body)
        name = wanted.pop("groupName")
        self.groups[name] = group_config(name, **wanted)
        return _ok()

    def _delete_group(self: FakeBroker, command: RemotingCommand, connection: Connection) -> RemotingCommand:
        group = command.ext_fields["groupName"]
        self.groups.pop(group, None)
        if command.ext_fields.get("cleanOffset") == "true":
            for key in [key for key in self.consumer_offsets if key[1] == group]:
                del self.consumer_offsets[key]
        return _ok()

    def _group_configs(self: FakeBroker, command: RemotingCommand, connection: Connection) -> RemotingCommand:
        return _table("subscriptionGroupTable", self.groups)

    # Configuration

    def _get_config(self: FakeBroker, command: RemotingCommand, connection: Connection) -> RemotingCommand:
        return _ok("".join(f"{name}={value}\n" for name, value in self.config.items()), version="{}")

    def _update_config(self: FakeBroker, command: RemotingCommand, connection: Connection) -> RemotingCommand:
        self.config.update(read_properties_text(command.body))
        return _ok()

    def _runtime_info(self: FakeBroker, command: RemotingCommand, connection: Connection) -> RemotingCommand:
        return _ok(
            dump({
                "table": {
                    "brokerVersionDesc": self.version_name,
                    "brokerActive": "true",
                    "dispatchBehindBytes": "0" if self.delivers else "1024",
                }
            })
        )  # fmt: skip

    # Clients

    def _heartbeat(self: FakeBroker, command: RemotingCommand, connection: Connection) -> RemotingCommand:
        body = loads(command.body)
        client = {
            "clientAddr": connection.address,
            "clientId": body["clientID"],
            "language": command.language,
            "version": command.version,
        }
        for producer in body.get("producerDataSet") or []:
            self.producers.setdefault(producer["groupName"], {})[connection] = client
        for consumer in body.get("consumerDataSet") or []:
            self.consumers.setdefault(consumer["groupName"], {})[connection] = {**client, "consumer": consumer}
        return _ok()

    def _unregister(self: FakeBroker, command: RemotingCommand, connection: Connection) -> RemotingCommand:
        for table, name in ((self.producers, "producerGroup"), (self.consumers, "consumerGroup")):
            group = command.ext_fields.get(name)
            if group in table:
                table[group].pop(connection, None)
                if not table[group]:
                    del table[group]
        return _ok()

    def _consumer_list(self: FakeBroker, command: RemotingCommand, connection: Connection) -> RemotingCommand:
        clients = self.consumers.get(command.ext_fields["consumerGroup"])
        if not clients:
            raise Refusal(ResponseCode.SYSTEM_ERROR, "no consumer for this group")
        return _ok(dump({"consumerIdList": [client["clientId"] for client in clients.values()]}))

    def _consumer_connections(self: FakeBroker, command: RemotingCommand, connection: Connection) -> RemotingCommand:
        group = command.ext_fields["consumerGroup"]
        clients = list(self.consumers.get(group, {}).values())
        if not clients:
            raise Refusal(ResponseCode.CONSUMER_NOT_ONLINE, f"the consumer group[{group}] not online")
        consumer = clients[0]["consumer"]
        return _ok(
            dump({
                "connectionSet": [{name: client[name] for name in client if name != "consumer"} for client in clients],
                "consumeFromWhere": consumer.get("consumeFromWhere", "CONSUME_FROM_LAST_OFFSET"),
                "consumeType": consumer.get("consumeType", "CONSUME_PASSIVELY"),
                "messageModel": consumer.get("messageModel", "CLUSTERING"),
                "subscriptionTable": {item["topic"]: item for item in consumer.get("subscriptionDataSet", [])},
            })
        )  # fmt: skip

    def _producer_connections(self: FakeBroker, command: RemotingCommand, connection: Connection) -> RemotingCommand:
        group = command.ext_fields["producerGroup"]
        clients = self.producers.get(group)
        if not clients:
            raise Refusal(ResponseCode.SYSTEM_ERROR, f"the producer group[{group}] not exist")
        return _ok(dump({"connectionSet": list(clients.values())}))

    def _groups_by_topic(self: FakeBroker, command: RemotingCommand, connection: Connection) -> RemotingCommand:
        topic = command.ext_fields["topic"]
        return _ok(dump({"groupList": sorted(group for name, group in self.consumer_offsets if name == topic)}))

    # Locks

    def _lock(self: FakeBroker, command: RemotingCommand, connection: Connection) -> RemotingCommand:
        group, client_id, queues = _lock_request(command)
        locked = self.locks.lock(group, client_id, queues)
        return _ok(dump({"lockOKMQSet": [queue_object(queue) for queue in locked]}))

    def _unlock(self: FakeBroker, command: RemotingCommand, connection: Connection) -> RemotingCommand:
        self.locks.unlock(*_lock_request(command))
        return _ok()


def _lock_request(command: RemotingCommand) -> tuple[str, str, list[QueueKey]]:
    body = loads(command.body)
    queues = [(item["topic"], item["brokerName"], item["queueId"]) for item in body["mqSet"]]
    return body["consumerGroup"], body["clientId"], queues
