package witness;

import com.alibaba.fastjson2.JSONObject;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** Reads every queue of a topic from its first kept message to its end, in no group's name; nothing is committed. */
final class Drain {
    private static final int THREADS_MAX = 8;
    private static final int PULL_MESSAGES_MAX = 32;
    private static final long LOOK_AGAIN_MS = 50;

    private final Clients clients;

    Drain(Clients clients) {
        this.clients = clients;
    }

    Object run(JSONObject arguments) throws Exception {
        List<MessageQueue> queues = clients.queues(arguments);
        DefaultMQPullConsumer reader =
            clients.reader(arguments.getString("name_servers"), arguments.getBooleanValue("decompress", true));
        long end = System.nanoTime() + (long) (arguments.getDoubleValue("timeout_seconds") * 1e9);
        long expected = arguments.getLongValue("expect");
        Map<MessageQueue, Long> positions = new ConcurrentHashMap<>();
        for (MessageQueue queue : queues) {
            positions.put(queue, reader.minOffset(queue));
        }
        Map<MessageQueue, Long> starts = new HashMap<>(positions);
        ExecutorService pool = Executors.newFixedThreadPool(Math.min(THREADS_MAX, queues.size()));
        try (Rows rows = new Rows(arguments)) {
            while (true) {
                List<Future<Void>> reads = new ArrayList<>();
                for (MessageQueue queue : queues) {
                    reads.add(pool.submit(() -> {
                        positions.put(queue, read(reader, queue, positions.get(queue), arguments, rows));
                        return null;
                    }));
                }
                for (Future<Void> read : reads) {
                    read.get();
                }
                if (rows.count() >= expected || System.nanoTime() >= end) {
                    return Map.of("count", rows.count(), "queues", ranges(queues, starts, positions));
                }
                Thread.sleep(LOOK_AGAIN_MS);
            }
        } finally {
            pool.shutdownNow();
        }
    }

    /** Returns the position behind the last message read. */
    private static long read(
        DefaultMQPullConsumer reader, MessageQueue queue, long start, JSONObject arguments, Rows rows) throws Exception {
        long position = start;
        long end = reader.maxOffset(queue);
        while (position < end) {
            PullResult pulled = reader.pull(queue, "*", position, PULL_MESSAGES_MAX);
            if (pulled.getPullStatus() == PullStatus.FOUND) {
                for (MessageExt message : pulled.getMsgFoundList()) {
                    message.setBrokerName(queue.getBrokerName());
                    rows.add(Rows.described(message, arguments));
                }
            }
            if (pulled.getNextBeginOffset() <= position) {
                // The end was counted before its message can be read; the next round looks again.
                return position;
            }
            position = pulled.getNextBeginOffset();
        }
        return position;
    }

    private static List<Map<String, Object>> ranges(
        List<MessageQueue> queues, Map<MessageQueue, Long> starts, Map<MessageQueue, Long> ends) {
        List<Map<String, Object>> ranges = new ArrayList<>();
        for (MessageQueue queue : queues) {
            ranges.add(Map.of("broker", queue.getBrokerName(), "queue", queue.getQueueId(),
                "start", starts.get(queue), "end", ends.get(queue)));
        }
        return ranges;
    }
}
