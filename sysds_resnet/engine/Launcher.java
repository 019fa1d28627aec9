import java.io.IOException;
import java.util.Arrays;
import org.apache.sysds.api.DMLScript;
import org.apache.sysds.hops.OptimizerUtils;
import org.apache.sysds.runtime.DMLScriptException;

/**
 * SystemDS's command line with an exit code and one-line errors; its own prints every exception on the
 * standard output and ends with 0. Compiled at start-up by the engine's own Janino.
 */
public class Launcher {
    public static void main(String[] args) {
        int code = 1;
        OptimizerUtils.ALLOW_LOOP_UPDATE_IN_PLACE = false; // as Engine does, see session.py
        try {
            code = DMLScript.executeScript(args) ? 0 : 2;
        } catch (Throwable error) {
            if (Arrays.asList(args).contains("-debug"))
                error.printStackTrace();
            System.out.flush();
            System.err.println("error: " + describe(error).replaceAll("\\s+", " "));
            // the user's to put right: the program's own stop(), or a file that is missing or damaged
            Throwable cause = innermost(error);
            code = cause instanceof DMLScriptException || cause instanceof IOException ? 2 : 1;
        }
        System.exit(code);
    }

    private static String describe(Throwable error) {
        Throwable cause = innermost(error);
        if (cause instanceof DMLScriptException)
            return cause.getMessage();
        String reading = ""; // names the file, which the innermost exception may not
        for (Throwable t = error; t != null; t = t.getCause())
            if (t.getMessage() != null && t.getMessage().startsWith("Reading of "))
                reading = t.getMessage() + " ";
        return "SystemDS: " + reading + cause.getClass().getSimpleName() + ": " + cause.getMessage();
    }

    private static Throwable innermost(Throwable error) {
        while (error.getCause() != null)
            error = error.getCause();
        return error;
    }
}
