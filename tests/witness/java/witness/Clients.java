package witness;

import com.alibaba.fastjson2.JSONObject;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.acl.common.AclClientRPCHook;
import org.apache.rocketmq.acl.common.SessionCredentials;
import org.apache.rocketmq.client.ClientConfig;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.common.compression.CompressionType;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.RPCHook;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

/** The official clients, one of each kind for each cluster, started on first use and kept. */
final class Clients {
    static final int COMPRESS_OVER_BYTES = 4096;
    private static final int SEND_TIMEOUT_MS = 10_000;

    private final Map<String, DefaultMQProducer> producers = new ConcurrentHashMap<>();
    private final Map<String, DefaultMQPullConsumer> readers = new ConcurrentHashMap<>();
    private final Map<String, DefaultMQAdminExt> admins = new ConcurrentHashMap<>();
    private final AtomicInteger instances = new AtomicInteger();

    /** Signs requests with the account the witness was started with; null without one. */
    static RPCHook signer() {
        String accessKey = System.getProperty("witness.accessKey");
        return accessKey == null ? null
            : new AclClientRPCHook(new SessionCredentials(accessKey, System.getProperty("witness.secretKey")));
    }

    /** Without its own instance name a client would share the connections, and so the cluster, of another. */
    <C extends ClientConfig> C configured(C client, String nameServers) {
        client.setNamesrvAddr(nameServers);
        client.setInstanceName("witness-" + instances.incrementAndGet());
        client.setVipChannelEnabled(false);
        String namespace = System.getProperty("witness.namespace");
        if (namespace != null) {
            client.setNamespace(namespace);
        }
        return client;
    }

    /** A producer that compresses with the named method (ZLIB, LZ4, ZSTD), or not at all where that is null. */
    DefaultMQProducer producer(String nameServers, String compression) {
        return producers.computeIfAbsent(nameServers + "/" + compression, key -> {
            DefaultMQProducer producer = configured(new DefaultMQProducer("witness-producers", signer()), nameServers);
            producer.setSendMsgTimeout(SEND_TIMEOUT_MS);
            producer.setCompressMsgBodyOverHowmuch(compression == null ? Integer.MAX_VALUE : COMPRESS_OVER_BYTES);
            if (compression != null) {
                producer.setCompressType(CompressionType.of(compression));
            }
            return started(producer);
        });
    }

    TransactionMQProducer transactionProducer(String nameServers) {
        return (TransactionMQProducer) producers.computeIfAbsent(nameServers + "/transaction", key -> {
            TransactionMQProducer producer = configured(new TransactionMQProducer("witness-transactions", signer()), nameServers);
            producer.setSendMsgTimeout(SEND_TIMEOUT_MS);
            producer.setTransactionListener(new Decisions());
            return started(producer);
        });
    }

    DefaultMQPullConsumer reader(String nameServers, boolean decompresses) {
        return readers.computeIfAbsent(nameServers + "/" + decompresses, key -> {
            DefaultMQPullConsumer reader = configured(new DefaultMQPullConsumer("witness-readers", signer()), nameServers);
            reader.setDecodeDecompressBody(decompresses);
            try {
                reader.start();
            } catch (MQClientException problem) {
                throw new IllegalStateException(problem);
            }
            return reader;
        });
    }

    DefaultMQAdminExt admin(String nameServers) {
        return admins.computeIfAbsent(nameServers, key -> {
            DefaultMQAdminExt admin = configured(new DefaultMQAdminExt(signer()), nameServers);
            try {
                admin.start();
            } catch (MQClientException problem) {
                throw new IllegalStateException(problem);
            }
            return admin;
        });
    }

    /** The topic's queues in order, narrowed to the arguments' broker and queue where those are given. */
    List<MessageQueue> queues(JSONObject arguments) throws MQClientException {
        String nameServers = arguments.getString("name_servers");
        String topic = arguments.getString("topic");
        List<MessageQueue> queues = new ArrayList<>(reader(nameServers, true).fetchSubscribeMessageQueues(topic));
        String broker = arguments.getString("broker");
        Integer queue = arguments.getInteger("queue");
        queues.removeIf(each -> broker != null && !broker.equals(each.getBrokerName()));
        queues.removeIf(each -> queue != null && queue != each.getQueueId());
        if (queues.isEmpty()) {
            throw new IllegalArgumentException("no such queue of " + topic + ": broker " + broker + ", queue " + queue);
        }
        Collections.sort(queues);
        return queues;
    }

    private static DefaultMQProducer started(DefaultMQProducer producer) {
        try {
            producer.start();
        } catch (MQClientException problem) {
            throw new IllegalStateException(problem);
        }
        return producer;
    }

    /** Decides as the sender said: commit, rollback, or the same only when the broker asks (check, check-rollback). */
    private static final class Decisions implements TransactionListener {
        private final Map<String, String> later = new ConcurrentHashMap<>();

        @Override
        public LocalTransactionState executeLocalTransaction(Message message, Object decision) {
            switch ((String) decision) {
                case "commit":
                    return LocalTransactionState.COMMIT_MESSAGE;
                case "rollback":
                    return LocalTransactionState.ROLLBACK_MESSAGE;
                default:
                    later.put(message.getTransactionId(), (String) decision);
                    return LocalTransactionState.UNKNOW;
            }
        }

        @Override
        public LocalTransactionState checkLocalTransaction(MessageExt message) {
            String decision = later.get(message.getTransactionId());
            if (decision == null) {
                return LocalTransactionState.UNKNOW;
            }
            return decision.equals("check") ? LocalTransactionState.COMMIT_MESSAGE : LocalTransactionState.ROLLBACK_MESSAGE;
        }
    }
}
