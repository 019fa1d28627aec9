import java.io.IOException;
import java.lang.invoke.MethodHandles;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.apache.sysds.api.DMLScript;
import org.apache.sysds.hops.OptimizerUtils;
import org.apache.sysds.runtime.DMLScriptException;
import org.codehaus.janino.SimpleCompiler;

/**
 * SystemDS's command line with an exit code and one-line errors; its own prints every exception on the
 * standard output and ends with 0. Compiled at start-up by the engine's own Janino.
 */
public class Launcher {
    public static void main(String[] args) {
        int code = 1;
        OptimizerUtils.ALLOW_LOOP_UPDATE_IN_PLACE = false; // as Engine does, see session.py
        try {
            if (Arrays.asList(args).contains("-gpu")) {
                runOnGpu(args);
                code = 0;
            }
            else {
                code = DMLScript.executeScript(args) ? 0 : 2;
            }
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

    /** Compiles what that needs, from the folder sysds_resnet.java; see OnGpu.java. */
    private static void runOnGpu(String[] args) throws Throwable {
        Path folder = Paths.get(System.getProperty("sysds_resnet.java"));
        replace(folder, "LibMatrixCuDNNConvolutionAlgorithm", "org.apache.sysds.runtime.matrix.data.LibMatrixCUDA");
        replace(folder, "SpoofCUDAInstruction", "org.apache.sysds.runtime.instructions.gpu.GPUInstruction");
        ClassLoader devices = compile(folder.resolve("Devices.java"), null).getClassLoader();
        ClassLoader functions = compile(folder.resolve("GpuFunctions.java"), devices).getClassLoader();
        ClassLoader onGpu = compile(folder.resolve("OnGpu.java"), functions).getClassLoader();
        List rest = new ArrayList(Arrays.asList(args));
        rest.remove("-gpu");
        try {
            Method run = onGpu.loadClass("sysds_resnet.OnGpu").getMethod("run", new Class[] {String[].class});
            run.invoke(null, new Object[] {rest.toArray(new String[0])});
        } catch (InvocationTargetException error) {
            throw error.getCause();
        }
    }

    /** As replace_class in own_java.py. */
    private static void replace(Path folder, String name, String neighbour) throws Exception {
        Map code = compile(folder.resolve(name + ".java"), null).getBytecodes();
        MethodHandles.privateLookupIn(Class.forName(neighbour), MethodHandles.lookup())
            .defineClass((byte[]) code.values().iterator().next());
    }

    private static SimpleCompiler compile(Path file, ClassLoader parent) throws Exception {
        SimpleCompiler compiler = new SimpleCompiler();
        if (parent != null)
            compiler.setParentClassLoader(parent);
        compiler.cook(new String(Files.readAllBytes(file), StandardCharsets.UTF_8));
        return compiler;
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
