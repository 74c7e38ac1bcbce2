package witness;

import com.alibaba.fastjson2.JSONObject;
import java.lang.reflect.Method;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.MessageSelector;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** Consumer groups as applications have them: push consumers that run until stopped, and exact pulls with a commit. */
final class Consume {
    private static final String FAILS = "fail-";
    private static final int PERSIST_EVERY_MS = 500;
    private static final int PULL_MESSAGES_MAX = 32;
    private static final long LOOK_AGAIN_MS = 50;
    private static final long REBALANCE_EVERY_MS = 500;

    private final Clients clients;
    private final Map<String, Running> running = new ConcurrentHashMap<>();

    Consume(Clients clients) {
        this.clients = clients;
    }

    Object start(JSONObject arguments) throws Exception {
        Running started = new Running(clients, arguments);
        running.put(arguments.getString("handle"), started);
        started.consumer.start();
        started.waitForQueues();
        return Map.of();
    }

    /** Returns when expect messages were seen, none came for quiet_seconds, or timeout_seconds are over. */
    Object await(JSONObject arguments) throws Exception {
        Running consumer = running.get(arguments.getString("handle"));
        long expected = arguments.getLongValue("expect");
        double quietSeconds = arguments.getDoubleValue("quiet_seconds");
        long begun = System.nanoTime();
        long end = begun + (long) (arguments.getDoubleValue("timeout_seconds") * 1e9);
        while (true) {
            long now = System.nanoTime();
            long count = consumer.count();
            boolean isQuiet = quietSeconds > 0 && now - Math.max(begun, consumer.lastSeen) > quietSeconds * 1e9;
            if (expected > 0 && count >= expected || isQuiet || now > end) {
                return Map.of("count", count);
            }
            Thread.sleep(LOOK_AGAIN_MS);
        }
    }

    Object stop(JSONObject arguments) throws Exception {
        Running stopped = running.remove(arguments.getString("handle"));
        stopped.consumer.shutdown();
        try (Rows rows = new Rows(arguments)) {
            for (Map<String, Object> row : stopped.seenRows()) {
                rows.add(row);
            }
            return Map.of("count", rows.count());
        }
    }

    /** Reads at most count messages from where the group stands (or the start), and commits behind exactly those. */
    Object take(JSONObject arguments) throws Exception {
        DefaultMQPullConsumer consumer =
            clients.configured(new DefaultMQPullConsumer(arguments.getString("group"), Clients.signer()), arguments.getString("name_servers"));
        consumer.start();
        try (Rows rows = new Rows(arguments)) {
            for (MessageQueue queue : clients.queues(arguments)) {
                takeFrom(consumer, queue, arguments, rows);
            }
            return Map.of("count", rows.count());
        } finally {
            consumer.shutdown();
        }
    }

    private static void takeFrom(
        DefaultMQPullConsumer consumer, MessageQueue queue, JSONObject arguments, Rows rows) throws Exception {
        long countMax = arguments.getLongValue("count");
        long committed = consumer.fetchConsumeOffset(queue, true);
        long position = committed >= 0 ? committed : consumer.minOffset(queue);
        long end = consumer.maxOffset(queue);
        MessageSelector selector = selector(arguments);
        while (position < end && rows.count() < countMax) {
            PullResult pulled = consumer.pull(queue, selector, position, PULL_MESSAGES_MAX);
            long next = pulled.getNextBeginOffset();
            if (pulled.getPullStatus() == PullStatus.FOUND) {
                for (MessageExt message : pulled.getMsgFoundList()) {
                    if (rows.count() >= countMax) {
                        next = message.getQueueOffset();
                        break;
                    }
                    message.setBrokerName(queue.getBrokerName());
                    rows.add(Rows.described(message, arguments));
                }
            }
            if (next <= position) {
                break;
            }
            position = next;
        }
        if (position != committed) {
            consumer.getOffsetStore().updateConsumeOffsetToBroker(queue, position, false);
        }
    }

    private static MessageSelector selector(JSONObject arguments) {
        String expression = arguments.getString("expression");
        return arguments.getString("expression_type").equals("SQL92")
            ? MessageSelector.bySql(expression) : MessageSelector.byTag(expression);
    }

    /** One push consumer and what it has seen. */
    private static final class Running {
        private final DefaultMQPushConsumer consumer;
        private final List<Map<String, Object>> seen = new ArrayList<>();
        private final JSONObject arguments;
        private volatile long lastSeen = System.nanoTime();

        Running(Clients clients, JSONObject arguments) throws Exception {
            this.arguments = arguments;
            consumer =
                clients.configured(new DefaultMQPushConsumer(arguments.getString("group"), Clients.signer()), arguments.getString("name_servers"));
            consumer.setPersistConsumerOffsetInterval(PERSIST_EVERY_MS);
            consumer.setConsumeFromWhere(arguments.getBooleanValue("from_first", true)
                ? ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET : ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET);
            if (arguments.getBooleanValue("broadcast")) {
                broadcast();
            }
            consumer.setMaxReconsumeTimes(arguments.getIntValue("attempts_max", -1));
            consumer.subscribe(arguments.getString("topic"), selector(arguments));
            int failUntil = arguments.getIntValue("fail_until_attempt");
            boolean isByTag = arguments.getBooleanValue("fail_by_tag");
            if (arguments.getBooleanValue("orderly")) {
                consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
                    note(messages, context.getMessageQueue());
                    return ConsumeOrderlyStatus.SUCCESS;
                });
            } else {
                consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
                    note(messages, context.getMessageQueue());
                    return messages.get(0).getReconsumeTimes() < (isByTag ? failuresOf(messages.get(0)) : failUntil)
                        ? ConsumeConcurrentlyStatus.RECONSUME_LATER : ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
                });
            }
        }

        /** The enum's package differs between 4.x and 5.x. */
        @SuppressWarnings({"unchecked", "rawtypes"})
        private void broadcast() throws ReflectiveOperationException {
            for (Method method : DefaultMQPushConsumer.class.getMethods()) {
                if (method.getName().equals("setMessageModel")) {
                    method.invoke(consumer, Enum.valueOf((Class) method.getParameterTypes()[0], "BROADCASTING"));
                }
            }
        }

        private static int failuresOf(MessageExt message) {
            String tags = message.getTags();
            return tags != null && tags.startsWith(FAILS) ? Integer.parseInt(tags.substring(FAILS.length())) : 0;
        }

        private void note(List<MessageExt> messages, MessageQueue queue) {
            for (MessageExt message : messages) {
                message.setBrokerName(queue.getBrokerName());
                Map<String, Object> row = new HashMap<>(Rows.described(message, arguments));
                row.put("seen_ms", System.currentTimeMillis());
                synchronized (seen) {
                    seen.add(row);
                }
            }
            lastSeen = System.nanoTime();
        }

        long count() {
            synchronized (seen) {
                return seen.size();
            }
        }

        List<Map<String, Object>> seenRows() {
            synchronized (seen) {
                return new ArrayList<>(seen);
            }
        }

        /** A consumer that misses its first rebalance would get its queues up to twenty seconds later. */
        void waitForQueues() throws InterruptedException {
            long end = System.nanoTime() + (long) (arguments.getDoubleValue("timeout_seconds") * 1e9);
            String topic = arguments.getString("topic");
            String namespace = System.getProperty("witness.namespace");
            String wired = namespace == null ? topic : namespace + "%" + topic;
            long rebalanceAt = System.currentTimeMillis() + REBALANCE_EVERY_MS;
            while (true) {
                boolean holds = consumer.getDefaultMQPushConsumerImpl().getRebalanceImpl().getProcessQueueTable().keySet()
                    .stream().anyMatch(queue -> queue.getTopic().equals(wired));
                if (holds) {
                    return;
                }
                if (System.nanoTime() > end) {
                    throw new IllegalStateException("no queue of " + topic + " was assigned to the consumer");
                }
                if (System.currentTimeMillis() > rebalanceAt) {
                    consumer.getDefaultMQPushConsumerImpl().getmQClientFactory().rebalanceImmediately();
                    rebalanceAt = System.currentTimeMillis() + REBALANCE_EVERY_MS;
                }
                Thread.sleep(LOOK_AGAIN_MS);
            }
        }
    }
}
