package witness;

import com.alibaba.fastjson2.JSONObject;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * Fills a topic fast: a thread a queue, batches sent one after another. Message i goes to queue i mod n; its body is
 * "prefix-i", padded with dots to body_bytes, so a reader can tell order, gaps and doubles from the bodies alone.
 */
final class Bulk {
    private static final int THREADS_MAX = 8;

    private final Clients clients;

    Bulk(Clients clients) {
        this.clients = clients;
    }

    Object run(JSONObject arguments) throws Exception {
        List<MessageQueue> queues = clients.queues(arguments);
        DefaultMQProducer producer = clients.producer(arguments.getString("name_servers"), null);
        ExecutorService pool = Executors.newFixedThreadPool(Math.min(THREADS_MAX, queues.size()));
        long begun = System.nanoTime();
        try {
            List<Future<Map<String, Object>>> fills = new ArrayList<>();
            for (int place = 0; place < queues.size(); place++) {
                int start = place;
                fills.add(pool.submit(() -> fill(arguments, producer, queues, start)));
            }
            List<Map<String, Object>> filled = new ArrayList<>();
            for (Future<Map<String, Object>> fill : fills) {
                filled.add(fill.get());
            }
            return Map.of("queues", filled, "seconds", (System.nanoTime() - begun) / 1e9);
        } finally {
            pool.shutdownNow();
        }
    }

    private static Map<String, Object> fill(
        JSONObject arguments, DefaultMQProducer producer, List<MessageQueue> queues, int start) throws Exception {
        int first = arguments.getIntValue("first");
        int end = first + arguments.getIntValue("count");
        int batchSize = arguments.getIntValue("batch_size");
        MessageQueue queue = queues.get(start);
        long firstOffset = -1;
        int sent = 0;
        List<Message> batch = new ArrayList<>(batchSize);
        for (int index = first + start; index < end; index += queues.size()) {
            batch.add(message(arguments, index));
            if (batch.size() == batchSize || index + queues.size() >= end) {
                SendResult result = producer.send(batch, queue);
                if (firstOffset < 0) {
                    firstOffset = result.getQueueOffset();
                }
                sent += batch.size();
                batch.clear();
            }
        }
        Map<String, Object> filled = new HashMap<>();
        filled.put("broker", queue.getBrokerName());
        filled.put("queue", queue.getQueueId());
        filled.put("first_offset", firstOffset);
        filled.put("count", sent);
        return filled;
    }

    private static Message message(JSONObject arguments, int index) {
        byte[] text = (arguments.getString("prefix") + "-" + index).getBytes(StandardCharsets.UTF_8);
        byte[] body = text;
        int size = arguments.getIntValue("body_bytes");
        if (size > text.length) {
            body = new byte[size];
            Arrays.fill(body, (byte) '.');
            System.arraycopy(text, 0, body, 0, text.length);
        }
        Message message = new Message(arguments.getString("topic"), body);
        if (arguments.getBooleanValue("with_keys", false)) {
            message.setKeys(arguments.getString("prefix") + "-" + index);
        }
        return message;
    }
}
