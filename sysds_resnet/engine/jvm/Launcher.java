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
import org.apache.hadoop.security.UserGroupInformation;
import org.apache.sysds.api.DMLScript;
import org.apache.sysds.hops.OptimizerUtils;
import org.apache.sysds.parser.LanguageException;
import org.apache.sysds.parser.ParseException;
import org.apache.sysds.runtime.DMLScriptException;
import org.codehaus.janino.SimpleCompiler;

/**
 * SystemDS's command line with checked arguments, an exit code and one-line errors. SystemDS's own command line ignores
 * arguments that a program does not have, prints every exception on the standard output and ends with 0. Janino, which
 * comes with the engine, compiles this class at start-up.
 *
 * The first argument is the folder engine/, which contains this file and those that it compiles; the others are
 * SystemDS's.
 */
public class Launcher {
    private static final int LONGEST = 400; // characters of the engine's message in an error: it may have a whole row

    private final Path folder;
    private final String[] args;
    private Object arguments; // a ProgramArguments

    private Launcher(String folder, String[] args) {
        this.folder = Paths.get(folder);
        this.args = args;
    }

    public static void main(String[] args) {
        String user = System.getProperty("sysds_resnet.user");
        if (user != null) // the system has no name for this user, and without one Hadoop reads no files
            UserGroupInformation.setLoginUser(UserGroupInformation.createRemoteUser(user));
        Launcher launcher = new Launcher(args[0], (String[]) Arrays.copyOfRange(args, 1, args.length));
        int code = 1;
        OptimizerUtils.ALLOW_LOOP_UPDATE_IN_PLACE = false; // as in session.py, which says why
        try {
            code = launcher.run() ? 0 : 2;
        } catch (Throwable error) {
            if (Arrays.asList(args).contains("-debug"))
                error.printStackTrace();
            System.out.flush();
            String message = null;
            try {
                message = launcher.explain(error);
            } catch (Throwable another) {
                error.addSuppressed(another);
            }
            code = message == null ? 1 : 2;
            if (message == null)
                message = "SystemDS: " + innermost(error).getClass().getSimpleName() + ": " + shortened(error);
            System.err.println("error: " + message.replaceAll("\\s+", " "));
        }
        System.exit(code);
    }

    private boolean run() throws Throwable {
        try {
            ClassLoader files = compile("jvm/ProgramFiles", null).getClassLoader();
            ClassLoader checks = compile("jvm/ProgramArguments", files).getClassLoader();
            Class checked = checks.loadClass("sysds_resnet.ProgramArguments");
            arguments = checked.getConstructors()[0].newInstance(new Object[] {args});
            ask("checkFiles");
            if (!Arrays.asList(args).contains("-gpu"))
                return DMLScript.executeScript(args);
            runOnGpu();
            return true;
        } catch (InvocationTargetException error) {
            throw error.getCause();
        }
    }

    private Object ask(String method) throws Exception {
        return arguments.getClass().getMethod(method, new Class[0]).invoke(arguments, new Object[0]);
    }

    /** Compiles the classes that a run on a GPU needs, and runs the program there by engine/gpu/OnGpu.java. */
    private void runOnGpu() throws Exception {
        replace("LibMatrixCuDNNConvolutionAlgorithm", "org.apache.sysds.runtime.matrix.data.LibMatrixCUDA");
        replace("GpuArithmetic", "org.apache.sysds.runtime.instructions.gpu.GPUInstruction");
        replace("SpoofCUDAInstruction", "org.apache.sysds.runtime.instructions.gpu.GPUInstruction");
        ClassLoader devices = compile("gpu/Devices", null).getClassLoader();
        ClassLoader functions = compile("gpu/GpuFunctions", devices).getClassLoader();
        ClassLoader onGpu = compile("gpu/OnGpu", functions).getClassLoader();
        List rest = new ArrayList(Arrays.asList(args));
        rest.remove("-gpu");
        Method run = onGpu.loadClass("sysds_resnet.OnGpu").getMethod("run", new Class[] {String[].class});
        run.invoke(null, new Object[] {rest.toArray(new String[0])});
    }

    /** Puts a class into the engine, in place of its own of that name; neighbour is in the same Java package. */
    private void replace(String name, String neighbour) throws Exception {
        Map code = compile("gpu/replaced/" + name, null).getBytecodes();
        MethodHandles.privateLookupIn(Class.forName(neighbour), MethodHandles.lookup())
            .defineClass((byte[]) code.values().iterator().next());
    }

    private SimpleCompiler compile(String name, ClassLoader parent) throws Exception {
        SimpleCompiler compiler = new SimpleCompiler();
        if (parent != null)
            compiler.setParentClassLoader(parent);
        Path file = folder.resolve(name + ".java");
        compiler.cook(new String(Files.readAllBytes(file), StandardCharsets.UTF_8));
        return compiler;
    }

    /** Gives one line for an error that the user can fix in the program, its arguments or files; null for others. */
    private String explain(Throwable error) throws Exception {
        Throwable cause = innermost(error);
        if (cause instanceof DMLScriptException)
            return cause.getMessage(); // the program's own stop()
        if (cause.getMessage() != null && cause.getMessage().startsWith("Invalid block dimensions: -1")) {
            Object message = ask("missingMetadata");
            if (message != null)
                return (String) message;
        }
        for (Throwable t = error; t != null; t = t.getCause())
            if (t.getMessage() != null && t.getMessage().startsWith("Reading of ")) // its message names the file
                return "SystemDS: " + t.getMessage().replaceFirst(" \\(\\d+\\)", "") + " "
                    + cause.getClass().getSimpleName() + ": " + shortened(cause)
                    + (cause instanceof NumberFormatException ? ", expected numbers only, and no names of columns" : "");
        if (cause.getClass().getSimpleName().equals("JSONException")) // of a damaged .mtd file
            return "SystemDS: found metadata (.mtd) that are no JSON: " + shortened(cause) + "; write them again";
        if (cause instanceof IOException || cause instanceof ParseException || cause instanceof LanguageException)
            return "SystemDS: " + cause.getClass().getSimpleName() + ": " + shortened(cause);
        return null;
    }

    private static String shortened(Throwable error) {
        String message = String.valueOf(innermost(error).getMessage());
        return message.length() <= LONGEST ? message : message.substring(0, LONGEST) + "...";
    }

    private static Throwable innermost(Throwable error) {
        while (error.getCause() != null)
            error = error.getCause();
        return error;
    }
}
