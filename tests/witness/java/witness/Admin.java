package witness;

import com.alibaba.fastjson2.JSONObject;
import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.protocol.ResponseCode;
import org.apache.rocketmq.remoting.protocol.admin.ConsumeStats;
import org.apache.rocketmq.remoting.protocol.body.ClusterInfo;
import org.apache.rocketmq.remoting.protocol.route.BrokerData;
import org.apache.rocketmq.remoting.protocol.route.QueueData;
import org.apache.rocketmq.remoting.protocol.subscription.SubscriptionGroupConfig;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;
import org.apache.rocketmq.tools.command.MQAdminStartup;

/** What an operator does with mqadmin. */
final class Admin {
    private static final long ROUTE_SECONDS_MAX = 30;
    private static final long LOOK_AGAIN_MS = 20;

    private final Clients clients;

    Admin(Clients clients) {
        this.clients = clients;
    }

    /** Creates or changes a topic on all brokers, or on the one named; returns when the route shows it there. */
    Object createTopic(JSONObject arguments) throws Exception {
        DefaultMQAdminExt admin = admin(arguments);
        String topic = arguments.getString("topic");
        int queues = arguments.getIntValue("queues");
        TopicConfig config = new TopicConfig(topic, queues, queues, arguments.getIntValue("perm", 6));
        config.setOrder(arguments.getBooleanValue("order"));
        Map<String, String> attributes = new HashMap<>();
        String messageType = arguments.getString("message_type");
        if (messageType != null) {
            attributes.put("+message.type", messageType);
        }
        config.setAttributes(attributes);
        Map<String, String> masters = masters(admin, arguments.getString("broker"));
        for (String address : masters.values()) {
            admin.createAndUpdateTopicConfig(address, config);
        }
        long end = System.nanoTime() + ROUTE_SECONDS_MAX * 1_000_000_000L;
        while (!isRouted(admin, topic, masters.keySet(), queues)) {
            if (System.nanoTime() > end) {
                throw new IllegalStateException("the route of " + topic + " does not show it on " + masters.keySet());
            }
            Thread.sleep(LOOK_AGAIN_MS);
        }
        return Map.of("brokers", masters);
    }

    private static boolean isRouted(DefaultMQAdminExt admin, String topic, Set<String> brokers, int queues) throws Exception {
        try {
            Set<String> shown = new TreeSet<>();
            for (QueueData data : admin.examineTopicRouteInfo(topic).getQueueDatas()) {
                if (data.getWriteQueueNums() == queues) {
                    shown.add(data.getBrokerName());
                }
            }
            return shown.containsAll(brokers);
        } catch (MQClientException problem) {
            if (problem.getResponseCode() == ResponseCode.TOPIC_NOT_EXIST) {
                return false;
            }
            throw problem;
        }
    }

    Object deleteTopic(JSONObject arguments) throws Exception {
        DefaultMQAdminExt admin = admin(arguments);
        String topic = arguments.getString("topic");
        admin.deleteTopicInBroker(new TreeSet<>(masters(admin, null).values()), topic);
        admin.deleteTopicInNameServer(new TreeSet<>(List.of(arguments.getString("name_servers").split(";"))), topic);
        return Map.of();
    }

    Object createGroup(JSONObject arguments) throws Exception {
        DefaultMQAdminExt admin = admin(arguments);
        SubscriptionGroupConfig config = new SubscriptionGroupConfig();
        config.setGroupName(arguments.getString("group"));
        for (String address : masters(admin, null).values()) {
            admin.createAndUpdateSubscriptionGroupConfig(address, config);
        }
        return Map.of();
    }

    /** First kept and next position of every queue. */
    Object offsets(JSONObject arguments) throws Exception {
        DefaultMQPullConsumer reader = clients.reader(arguments.getString("name_servers"), true);
        List<Map<String, Object>> offsets = new ArrayList<>();
        for (MessageQueue queue : clients.queues(arguments)) {
            offsets.add(Map.of("broker", queue.getBrokerName(), "queue", queue.getQueueId(),
                "min", reader.minOffset(queue), "max", reader.maxOffset(queue)));
        }
        return offsets;
    }

    Object topics(JSONObject arguments) throws Exception {
        return new TreeSet<>(admin(arguments).fetchAllTopicList().getTopicList());
    }

    /** As mqadmin consumerProgress; it is an exception for a group no broker knows. */
    Object consumerProgress(JSONObject arguments) throws Exception {
        ConsumeStats stats = admin(arguments).examineConsumeStats(arguments.getString("group"), arguments.getString("topic"));
        List<Map<String, Object>> rows = new ArrayList<>();
        new TreeMap<>(stats.getOffsetTable()).forEach((queue, offsets) -> rows.add(Map.of(
            "topic", queue.getTopic(), "broker", queue.getBrokerName(), "queue", queue.getQueueId(),
            "broker_offset", offsets.getBrokerOffset(), "consumer_offset", offsets.getConsumerOffset(),
            "diff", offsets.getBrokerOffset() - offsets.getConsumerOffset(), "last_ms", offsets.getLastTimestamp())));
        return rows;
    }

    /** Sets a group's offset in the queues the arguments narrow to. */
    Object setProgress(JSONObject arguments) throws Exception {
        DefaultMQAdminExt admin = admin(arguments);
        Map<String, String> masters = masters(admin, null);
        for (MessageQueue queue : clients.queues(arguments)) {
            admin.updateConsumeOffset(
                masters.get(queue.getBrokerName()), arguments.getString("group"), queue, arguments.getLongValue("offset"));
        }
        return Map.of();
    }

    /** The official command line in this process; what it prints is the result, since its exit code says nothing. */
    synchronized Object mqadmin(JSONObject arguments) throws Exception {
        List<String> words = arguments.getList("words", String.class);
        ByteArrayOutputStream printed = new ByteArrayOutputStream();
        PrintStream before = System.out;
        try (PrintStream capture = new PrintStream(printed, true, StandardCharsets.UTF_8)) {
            System.setOut(capture);
            MQAdminStartup.main0(words.toArray(new String[0]), Clients.signer());
        } finally {
            System.setOut(before);
        }
        return printed.toString(StandardCharsets.UTF_8);
    }

    private DefaultMQAdminExt admin(JSONObject arguments) {
        return clients.admin(arguments.getString("name_servers"));
    }

    private static Map<String, String> masters(DefaultMQAdminExt admin, String broker) throws Exception {
        ClusterInfo cluster = admin.examineBrokerClusterInfo();
        Map<String, String> masters = new TreeMap<>();
        for (BrokerData data : cluster.getBrokerAddrTable().values()) {
            if (broker == null || broker.equals(data.getBrokerName())) {
                masters.put(data.getBrokerName(), data.getBrokerAddrs().get(0L));
            }
        }
        if (masters.isEmpty()) {
            throw new IllegalArgumentException("no broker " + broker);
        }
        return masters;
    }
}
