import java.io.IOException;
import java.util.Arrays;
import org.apache.sysds.api.DMLScript;
import org.apache.sysds.runtime.DMLScriptException;

/**
 * SystemDS's command line with an exit code and one-line errors; its own prints every exception on the
 * standard output and ends with 0. Compiled at start-up by the engine's own Janino.
 */
public class Launcher {
    public static void main(String[] args) {
        int code = 1;
        try {
            code = DMLScript.executeScript(args) ? 0 : 2;
        } catch (Throwable error) {
            if (Arrays.asList(args).contains("-debug"))
                error.printStackTrace();
            Throwable cause = error;
            while (cause.getCause() != null)
                cause = cause.getCause();
            // the program's own stop(), or a file that is missing or damaged
            boolean plain = cause instanceof DMLScriptException || cause instanceof IOException;
            String message = plain ? cause.getMessage()
                : "SystemDS: " + cause.getClass().getSimpleName() + ": " + cause.getMessage();
            System.out.flush();
            System.err.println("error: " + message.replaceAll("\\s+", " "));
            code = plain ? 2 : 1;
        }
        System.exit(code);
    }
}
