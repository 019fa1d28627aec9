package sysds_resnet;

import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Iterator;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import org.antlr.v4.runtime.CharStreams;
import org.antlr.v4.runtime.Token;
import org.apache.commons.cli.ParseException;
import org.apache.commons.logging.LogFactory;
import org.apache.commons.text.similarity.LongestCommonSubsequence;
import org.apache.sysds.api.DMLOptions;
import org.apache.sysds.parser.ParserWrapper;
import org.apache.sysds.parser.dml.DmlLexer;
import org.apache.sysds.runtime.DMLScriptException;

/**
 * The arguments that a DML program takes, which are the names with a dollar sign in its files, and a check that those
 * given fit. The engine ignores an argument whose name no file mentions, and the program cannot see it.
 *
 * Launcher.java has Janino compile it in the engine's JVM, so it keeps to the Java that Janino accepts.
 */
public class ProgramArguments {
  private static final double SIMILAR = 0.4; // the least similarity for a suggestion; that of equal names is 1
  private static final double AS_SIMILAR = 0.85; // the least share of the similarity of the most similar name
  private static final int MOST = 3; // more suggestions than this tell nothing
  private static final String NUMBER = "[+-]?((\\d+\\.?\\d*|\\.\\d+)([eE][+-]?\\d+)?|NaN|Infinity)";

  private final Map given = new TreeMap(); // values by name
  private final String program;
  private final Map defaults = new TreeMap(); // by name: the literal in the program, or an empty text if there is none
  private final Map variables = new HashMap(); // names of arguments, by the variable that holds the value
  private final Set readFromMetadata = new LinkedHashSet(); // arguments, and names of files in the program
  private final Set readAsCsv = new LinkedHashSet();
  private final Set written = new LinkedHashSet(); // arguments that name files to write
  private final Set saved = new LinkedHashSet(); // arguments that name folders to write
  private final Set files = new HashSet();
  private boolean complete = true; // whether all files of the program were found

  /** Checks the arguments after -nvargs; throws a one-line error if one does not fit. */
  public ProgramArguments(String[] args) throws Exception {
    List options = new ArrayList(); // without -nvargs, of which the engine does not say what is wrong
    boolean named = false;
    for (int i = 0; i < args.length; i++) {
      if (args[i].equals("-nvargs"))
        named = true;
      else if (named && !args[i].startsWith("-"))
        take(args[i]);
      else {
        named = false;
        options.add(args[i]);
      }
    }
    try {
      program = DMLOptions.parseCLArguments((String[]) options.toArray(new String[0])).filePath;
    } catch (ParseException error) {
      throw new DMLScriptException("arguments: " + error.getMessage());
    }
    if (program == null)
      return;
    scan(program);
    List wrong = new ArrayList();
    Iterator names = given.keySet().iterator();
    while (names.hasNext()) {
      String name = (String) names.next();
      boolean ours = name.equals("$gpu") && options.contains("-gpu"); // scripts/systemds gives it to every program
      if (defaults.containsKey(name))
        checkKind(name);
      else if (complete && !ours)
        wrong.add(unknown(name));
    }
    if (!wrong.isEmpty())
      throw new DMLScriptException(String.join("; ", wrong));
  }

  private void take(String argument) throws Exception {
    int equals = argument.indexOf('=');
    if (equals < 1)
      throw new DMLScriptException("arguments: found " + argument + " after -nvargs, expected name=value");
    String name = "$" + argument.substring(0, equals);
    if (equals == argument.length() - 1)
      throw new DMLScriptException(name.substring(1) + ": found nothing, expected a value; add it or leave "
        + argument + " out");
    if (given.put(name, argument.substring(equals + 1)) != null && !name.equals("$gpu"))
      throw new DMLScriptException(name.substring(1) + ": found it twice, expected one value; remove the others");
  }

  /** Checks the files that the arguments name; throws a one-line error for one that does not do. */
  public void checkFiles() throws Exception {
    Iterator names = readAsCsv.iterator();
    while (names.hasNext()) {
      String name = (String) names.next();
      String file = name.startsWith("$") ? (String) given.get(name) : name;
      if (file != null && (!defaults.containsKey("$format") || "csv".equals(given.get("$format"))))
        ProgramFiles.checkCsv(file);
    }
    names = written.iterator();
    while (names.hasNext())
      checkWritable((String) names.next(), false);
    names = saved.iterator();
    while (names.hasNext())
      checkWritable((String) names.next(), true);
  }

  private void checkWritable(String name, boolean folder) throws Exception {
    if (given.containsKey(name))
      ProgramFiles.checkWritable(name.substring(1), (String) given.get(name), folder);
  }

  /** Gives an error message for a file that the program reads by its metadata but that has none, or null. */
  public String missingMetadata() {
    Iterator names = readFromMetadata.iterator();
    while (names.hasNext()) {
      String name = (String) names.next();
      String file = name.startsWith("$") ? (String) given.get(name) : name;
      if (file == null || !Files.exists(Paths.get(file)) || Files.exists(Paths.get(file + ".mtd")))
        continue;
      String mended = "a file with its format, such as {\"data_type\": \"matrix\", \"value_type\": \"double\", "
        + "\"format\": \"csv\", \"header\": false, \"sep\": \",\"}";
      if (readAsCsv.contains(name)) {
        if ("csv".equals(given.get("$format")))
          continue;
        mended = "it, or format=csv for a CSV file";
      }
      return file + ": found no " + file + ".mtd, expected " + mended;
    }
    return null;
  }

  /** Notes the arguments in a file of the program, and in the files that it names by source(). */
  private void scan(String file) {
    if (!files.add(file))
      return;
    List tokens = new ArrayList();
    try {
      String text = ParserWrapper.readDMLScript(file, LogFactory.getLog(ProgramArguments.class));
      DmlLexer lexer = new DmlLexer(CharStreams.fromString(text));
      lexer.removeErrorListeners(); // the parser will report them
      Iterator all = lexer.getAllTokens().iterator();
      while (all.hasNext()) {
        Token token = (Token) all.next();
        if (token.getChannel() == Token.DEFAULT_CHANNEL)
          tokens.add(token);
      }
    } catch (Exception error) { // the engine fails too, if the program needs the file
      complete = false;
      return;
    }
    for (int i = 0; i < tokens.size(); i++) {
      if (type(tokens, i) == DmlLexer.COMMANDLINE_NAMED_ID)
        noteArgument(tokens, i);
      else if (text(tokens, i).equals("read") && text(tokens, i + 1).equals("("))
        noteRead(tokens, i + 2);
      else if (text(tokens, i).equals("write") && text(tokens, i + 1).equals("("))
        noteOutput(tokens, i + 2, 1, written);
      else if (text(tokens, i).matches("(\\w+::)?save") && text(tokens, i + 1).equals("(")) // dml/network/weights.dml's
        noteOutput(tokens, i + 2, 2, saved);
      else if (text(tokens, i).equals("setwd"))
        complete = false; // from there on, files are looked up elsewhere
      else if (text(tokens, i).equals("source") && type(tokens, i + 2) == DmlLexer.STRING)
        scan(unquoted(text(tokens, i + 2)));
    }
  }

  /** Notes an argument: token i is $name, perhaps in variable = ifdef($name, default). */
  private void noteArgument(List tokens, int i) {
    String name = text(tokens, i);
    String value = "";
    if (text(tokens, i - 2).equals("ifdef") && text(tokens, i + 1).equals(",")) {
      value = text(tokens, i + 2);
      if (value.equals("-"))
        value += text(tokens, i + 3);
      if (!text(tokens, i + (value.startsWith("-") ? 4 : 3)).equals(")"))
        value = ""; // the default is no literal
      String equals = text(tokens, i - 3);
      if (equals.equals("=") || equals.equals("<-"))
        variables.put(text(tokens, i - 4), name);
    }
    if (value.length() > 0 || !defaults.containsKey(name))
      defaults.put(name, value);
  }

  /** Notes a file that is read: token i is the first one between the parentheses of read(...). */
  private void noteRead(List tokens, int i) {
    String next = text(tokens, i + 1);
    if (!next.equals(",") && !next.equals(")"))
      return; // the file's name is an expression
    String name = text(tokens, i);
    if (type(tokens, i) == DmlLexer.STRING)
      name = unquoted(name);
    else if (variables.containsKey(name))
      name = (String) variables.get(name);
    else if (!name.startsWith("$"))
      return;
    boolean csv = false;
    boolean numbers = true; // whether a CSV file has numbers alone, with commas between them
    boolean described = false;
    for (int k = i + 1; k < tokens.size() && !text(tokens, k).equals(")"); k++) {
      described |= text(tokens, k).equals("format") || text(tokens, k).equals("rows");
      csv |= unquoted(text(tokens, k)).equals("csv");
      numbers &= !text(tokens, k).matches("sep|data_type");
    }
    if (csv && numbers)
      readAsCsv.add(name);
    if (!described)
      readFromMetadata.add(name);
  }

  /** Notes an output: token i is the first one between parentheses; argument `place`, from 0, names the output. */
  private void noteOutput(List tokens, int i, int place, Set outputs) {
    int depth = 0;
    for (int k = i; k < tokens.size() && place > 0; k++, i = k) {
      String text = text(tokens, k);
      if (text.equals("(") || text.equals("["))
        depth++;
      else if (text.equals(")") || text.equals("]"))
        depth--;
      else if (depth == 0 && text.equals(","))
        place--;
    }
    String next = text(tokens, i + 1);
    String name = variables.containsKey(text(tokens, i)) ? (String) variables.get(text(tokens, i)) : text(tokens, i);
    if (name.startsWith("$") && (next.equals(",") || next.equals(")")))
      outputs.add(name);
  }

  private void checkKind(String name) throws Exception {
    String literal = (String) defaults.get(name);
    String value = (String) given.get(name);
    String expected = null;
    if (literal.matches(NUMBER) && !value.matches(NUMBER))
      expected = "a number; the default is " + literal;
    else if (literal.matches("TRUE|FALSE") && !value.matches("(?i)true|false"))
      expected = "TRUE or FALSE";
    if (expected != null)
      throw new DMLScriptException(name.substring(1) + ": found " + value + ", expected " + expected);
  }

  private String unknown(String name) {
    Map similar = new TreeMap();
    double best = SIMILAR;
    Iterator names = defaults.keySet().iterator();
    while (names.hasNext()) {
      String known = ((String) names.next()).substring(1);
      double similarity = similarity(name.substring(1).replace('-', '_'), known);
      best = Math.max(best, similarity);
      similar.put(known, new Double(similarity));
    }
    List nearest = new ArrayList();
    names = similar.keySet().iterator();
    while (names.hasNext()) {
      String known = (String) names.next();
      if (((Double) similar.get(known)).doubleValue() >= Math.max(AS_SIMILAR * best, SIMILAR))
        nearest.add(known);
    }
    String mended = "it takes " + (similar.isEmpty() ? "none" : String.join(", ", similar.keySet()));
    if (!nearest.isEmpty() && nearest.size() <= MOST)
      mended = "did you mean " + String.join(" or ", nearest) + "?";
    return name.substring(1) + ": no such argument of " + program + "; " + mended;
  }

  /** Gives twice the letters that two names share in the same order, divided by the letters of both. */
  private static double similarity(String one, String other) {
    int common = new LongestCommonSubsequence().apply(one.toLowerCase(Locale.ROOT), other.toLowerCase(Locale.ROOT))
      .intValue();
    return 2.0 * common / (one.length() + other.length());
  }

  private static String text(List tokens, int i) {
    return i < 0 || i >= tokens.size() ? "" : ((Token) tokens.get(i)).getText();
  }

  private static int type(List tokens, int i) {
    return i < 0 || i >= tokens.size() ? Token.EOF : ((Token) tokens.get(i)).getType();
  }

  private static String unquoted(String text) {
    return text.replaceAll("^[\"']|[\"']$", "");
  }
}
