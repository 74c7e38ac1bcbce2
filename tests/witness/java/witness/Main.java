package witness;

import com.alibaba.fastjson2.JSON;
import com.alibaba.fastjson2.JSONObject;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.apache.rocketmq.common.MQVersion;
import org.apache.rocketmq.common.message.MessageConst;

/**
 * Answers JSON lines: {"id", "command", "arguments"} in, {"id", "result"} or {"id", "problem"} out, in any order.
 * Rows that may be many go to the file named by the argument rows_file. The end of the input ends the process at once.
 */
public final class Main {
    interface Command {
        Object run(JSONObject arguments) throws Exception;
    }

    private static final PrintStream ANSWERS = System.out;

    private Main() {
    }

    public static void main(String[] args) throws IOException {
        // Whatever a library prints must not end up between the answers.
        System.setOut(System.err);
        Clients clients = new Clients();
        Consume consume = new Consume(clients);
        Admin admin = new Admin(clients);
        Map<String, Command> commands = Map.ofEntries(
            Map.entry("hello", arguments -> hello()),
            Map.entry("produce", new Produce(clients)::run),
            Map.entry("bulk", new Bulk(clients)::run),
            Map.entry("drain", new Drain(clients)::run),
            Map.entry("consumer_start", consume::start),
            Map.entry("consumer_wait", consume::await),
            Map.entry("consumer_stop", consume::stop),
            Map.entry("take", consume::take),
            Map.entry("create_topic", admin::createTopic),
            Map.entry("delete_topic", admin::deleteTopic),
            Map.entry("create_group", admin::createGroup),
            Map.entry("offsets", admin::offsets),
            Map.entry("topics", admin::topics),
            Map.entry("consumer_progress", admin::consumerProgress),
            Map.entry("set_progress", admin::setProgress),
            Map.entry("mqadmin", admin::mqadmin));
        serve(commands);
        Runtime.getRuntime().halt(0);
    }

    private static void serve(Map<String, Command> commands) throws IOException {
        ExecutorService pool = Executors.newCachedThreadPool();
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            JSONObject request = JSON.parseObject(line);
            pool.execute(() -> answer(request, commands.get(request.getString("command"))));
        }
    }

    private static void answer(JSONObject request, Command command) {
        JSONObject answer = new JSONObject();
        answer.put("id", request.get("id"));
        try {
            if (command == null) {
                throw new IllegalArgumentException("unknown command " + request.getString("command"));
            }
            answer.put("result", command.run(request.getJSONObject("arguments")));
        } catch (Throwable problem) {
            problem.printStackTrace();
            answer.put("problem", problem.toString());
        }
        byte[] line = (answer.toJSONString() + "\n").getBytes(StandardCharsets.UTF_8);
        synchronized (ANSWERS) {
            ANSWERS.write(line, 0, line.length);
            ANSWERS.flush();
        }
    }

    private static Object hello() {
        return Map.of(
            "client_version", MQVersion.getVersionDesc(MQVersion.CURRENT_VERSION),
            "system_properties", MessageConst.STRING_HASH_SET);
    }
}
