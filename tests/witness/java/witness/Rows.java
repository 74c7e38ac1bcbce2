package witness;

import com.alibaba.fastjson2.JSON;
import com.alibaba.fastjson2.JSONObject;
import java.io.BufferedWriter;
import java.io.Closeable;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Base64;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.Map;
import org.apache.rocketmq.common.message.MessageConst;
import org.apache.rocketmq.common.message.MessageExt;

/** A file of JSON lines, written by several threads. */
final class Rows implements Closeable {
    private final BufferedWriter writer;
    private long count;

    Rows(JSONObject arguments) throws IOException {
        writer = Files.newBufferedWriter(Path.of(arguments.getString("rows_file")), StandardCharsets.UTF_8);
    }

    void add(Map<String, Object> row) throws IOException {
        String line = JSON.toJSONString(row);
        synchronized (this) {
            writer.write(line);
            writer.write('\n');
            count++;
        }
    }

    synchronized long count() {
        return count;
    }

    @Override
    public synchronized void close() throws IOException {
        writer.close();
    }

    /** What was read. MIN_OFFSET and MAX_OFFSET are left out: the client adds them at reading. */
    static Map<String, Object> described(MessageExt message, JSONObject arguments) {
        byte[] body = message.getBody() == null ? new byte[0] : message.getBody();
        Map<String, Object> row = new HashMap<>();
        row.put("topic", message.getTopic());
        row.put("broker", message.getBrokerName());
        row.put("queue", message.getQueueId());
        row.put("offset", message.getQueueOffset());
        row.put("sha256", sha256(body));
        row.put("body_bytes", body.length);
        row.put("sys_flag", message.getSysFlag());
        row.put("flag", message.getFlag());
        row.put("born_ms", message.getBornTimestamp());
        row.put("stored_ms", message.getStoreTimestamp());
        row.put("reconsume_times", message.getReconsumeTimes());
        row.put("keys", message.getKeys());
        row.put("tags", message.getTags());
        if (arguments.getBooleanValue("with_properties", true)) {
            Map<String, String> properties = new HashMap<>(message.getProperties());
            properties.remove(MessageConst.PROPERTY_MIN_OFFSET);
            properties.remove(MessageConst.PROPERTY_MAX_OFFSET);
            row.put("properties", properties);
        }
        if (arguments.getBooleanValue("with_body", false)) {
            row.put("body", Base64.getEncoder().encodeToString(body));
        }
        return row;
    }

    static String sha256(byte[] body) {
        try {
            return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(body));
        } catch (NoSuchAlgorithmException impossible) {
            throw new IllegalStateException(impossible);
        }
    }
}
