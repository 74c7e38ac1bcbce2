package witness;

import com.alibaba.fastjson2.JSONArray;
import com.alibaba.fastjson2.JSONObject;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageConst;
import org.apache.rocketmq.common.message.MessageQueue;

/** Sends messages one after another and says where each went. */
final class Produce {
    private static final long NANOS_PER_SECOND = 1_000_000_000L;

    private final Clients clients;

    Produce(Clients clients) {
        this.clients = clients;
    }

    Object run(JSONObject arguments) throws Exception {
        List<MessageQueue> queues = clients.queues(arguments);
        try (Rows rows = new Rows(arguments)) {
            if (arguments.getString("kind").equals("batch")) {
                sendBatches(arguments, queues, rows);
            } else {
                sendSingly(arguments, queues, rows);
            }
            return Map.of("count", rows.count());
        }
    }

    private void sendSingly(JSONObject arguments, List<MessageQueue> queues, Rows rows) throws Exception {
        int first = arguments.getIntValue("first");
        int count = arguments.getIntValue("count");
        double perSecond = arguments.getDoubleValue("per_second");
        boolean keepsGoing = arguments.getBooleanValue("keep_going");
        long begun = System.nanoTime();
        for (int index = first; index < first + count; index++) {
            if (perSecond > 0) {
                long due = begun + (long) ((index - first) / perSecond * NANOS_PER_SECOND);
                Thread.sleep(Math.max(0, due - System.nanoTime()) / 1_000_000);
            }
            Message message = message(arguments, index);
            Map<String, Object> row = described(message, index);
            try {
                reportTo(row, send(arguments, message, index, queues), 0);
            } catch (Exception problem) {
                if (!keepsGoing) {
                    throw new IllegalStateException("message " + index + ": " + problem, problem);
                }
                row.put("problem", problem.toString());
            }
            rows.add(row);
        }
    }

    private SendResult send(JSONObject arguments, Message message, int index, List<MessageQueue> queues) throws Exception {
        String nameServers = arguments.getString("name_servers");
        MessageQueue queue = queues.get(index % queues.size());
        switch (arguments.getString("kind")) {
            case "transaction":
                return clients.transactionProducer(nameServers)
                    .sendMessageInTransaction(message, arguments.getString("decision"));
            case "ordered":
                String key = "ordering-" + index % arguments.getIntValue("ordering_keys");
                message.putUserProperty("ordering_key", key);
                return plain(nameServers).send(message, (all, target, chosen) -> queueOf(queues, (String) chosen), key);
            case "delay":
                message.setDelayTimeLevel(arguments.getIntValue("delay_level"));
                return plain(nameServers).send(message, queue);
            case "timer":
                setTimer(message, arguments.getString("timer"), arguments.getLongValue("after_ms"));
                return plain(nameServers).send(message, queue);
            case "compressed":
                return clients.producer(nameServers, arguments.getString("compression")).send(message, queue);
            case "normal":
                return plain(nameServers).send(message, queue);
            default:
                throw new IllegalArgumentException("unknown kind " + arguments.getString("kind"));
        }
    }

    private static MessageQueue queueOf(List<MessageQueue> queues, String key) {
        return queues.get(Math.floorMod(key.hashCode(), queues.size()));
    }

    private static void setTimer(Message message, String form, long afterMs) {
        switch (form) {
            case "deliver_at":
                message.setDeliverTimeMs(System.currentTimeMillis() + afterMs);
                break;
            case "delay_ms":
                message.setDelayTimeMs(afterMs);
                break;
            case "delay_seconds":
                message.setDelayTimeSec(afterMs / 1000);
                break;
            default:
                throw new IllegalArgumentException("unknown timer form " + form);
        }
    }

    private void sendBatches(JSONObject arguments, List<MessageQueue> queues, Rows rows) throws Exception {
        int first = arguments.getIntValue("first");
        int end = first + arguments.getIntValue("count");
        int batchSize = arguments.getIntValue("batch_size");
        int sent = 0;
        for (int start = first; start < end; start += batchSize) {
            List<Message> batch = new ArrayList<>();
            for (int index = start; index < Math.min(end, start + batchSize); index++) {
                batch.add(message(arguments, index));
            }
            MessageQueue queue = queues.get(sent++ % queues.size());
            SendResult result = plain(arguments.getString("name_servers")).send(batch, queue);
            for (int place = 0; place < batch.size(); place++) {
                Map<String, Object> row = described(batch.get(place), start + place);
                reportTo(row, result, place);
                rows.add(row);
            }
        }
    }

    private DefaultMQProducer plain(String nameServers) {
        return clients.producer(nameServers, null);
    }

    private static Map<String, Object> described(Message message, int index) {
        Map<String, Object> row = new HashMap<>();
        row.put("index", index);
        row.put("keys", message.getKeys());
        row.put("tags", message.getTags());
        row.put("sha256", Rows.sha256(message.getBody()));
        row.put("body_bytes", message.getBody().length);
        return row;
    }

    private static void reportTo(Map<String, Object> row, SendResult result, int placeInBatch) {
        row.put("status", result.getSendStatus().name());
        row.put("broker", result.getMessageQueue().getBrokerName());
        row.put("queue", result.getMessageQueue().getQueueId());
        row.put("offset", result.getQueueOffset() + placeInBatch);
    }

    /** Message number *index* of a run; tags and properties go round robin through the lists given. */
    static Message message(JSONObject arguments, int index) {
        Message message = new Message(arguments.getString("topic"), body(arguments, index));
        if (arguments.getBooleanValue("with_keys", true)) {
            message.setKeys(arguments.getString("prefix") + "-" + index);
        }
        JSONArray tags = arguments.getJSONArray("tags");
        if (tags != null && !tags.isEmpty() && tags.getString(index % tags.size()) != null) {
            message.setTags(tags.getString(index % tags.size()));
        }
        JSONArray properties = arguments.getJSONArray("properties");
        if (properties != null && !properties.isEmpty()) {
            for (Map.Entry<String, Object> each : properties.getJSONObject(index % properties.size()).entrySet()) {
                putProperty(message, each.getKey(), String.valueOf(each.getValue()).replace("{i}", String.valueOf(index)));
            }
        }
        return message;
    }

    /** The client refuses its own names as user properties; a test may want to send a few of them all the same. */
    private static void putProperty(Message message, String name, String value) {
        if (MessageConst.STRING_HASH_SET.contains(name)) {
            message.getProperties().put(name, value);
        } else {
            message.putUserProperty(name, value);
        }
    }

    /** "prefix-index", followed by filler up to body_bytes: repetitive for compressed messages, else noise. */
    private static byte[] body(JSONObject arguments, int index) {
        byte[] text = (arguments.getString("prefix") + "-" + index).getBytes(StandardCharsets.UTF_8);
        int size = arguments.getIntValue("body_bytes");
        if (size <= 0) {
            return text;
        }
        byte[] body = new byte[size];
        if (!arguments.getString("kind").equals("compressed")) {
            new Random(index).nextBytes(body);
        }
        for (int place = 0; place < size; place++) {
            if (place < text.length || arguments.getString("kind").equals("compressed")) {
                body[place] = text[place % text.length];
            }
        }
        return body;
    }
}
