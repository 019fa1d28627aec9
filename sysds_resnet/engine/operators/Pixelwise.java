package codegen;

import org.apache.sysds.runtime.util.CommonThreadPool;
$IMPORTS$

/**
 * A function of dml/layers/pixels/pixelwise.dml, computed in one pass over memory, as an operator of the engine.
 *
 * The text is a template: templates.py replaces the names between dollar signs by what one function needs. Values are
 * FP64; Pass.java is for others. Results are dense and are not examined for zeros, which would be another pass. The
 * compiler, Janino, knows no generics.
 */
public final class $NAME$ extends SpoofOperator {
  private static final VectorSpecies SPECIES = DoubleVector.SPECIES_PREFERRED;
  private static final int LANES = SPECIES.length();
  private static final boolean[] IS_VECTOR = {$IS_VECTOR$}; // for each input, whether it has shape (1, C), not (M, C)
  private static final int SUMS = $SUMS$; // number of sums over rows; 0 for a result of the inputs' shape
  private static final int LEAST_SHARED = 1 << 18; // the fewest values that are worth several threads
  // Vectors are repeated to this many values, so that loops do not end with each row.
  private static final int TILE = 1024;

  $FRAME$

  $STORAGE$

  public MatrixBlock execute(ArrayList inputs, ArrayList scalars, MatrixBlock out, int threads) {
    final MatrixBlock first = (MatrixBlock) inputs.get(0);
    final int columns = first.getNumColumns();
    final int cells = cells(first.getNumRows(), columns);
    final int tile = columns * Math.max(1, TILE / columns);
    final double[][] in = new double[inputs.size()][];
    for (int i = 0; i < in.length; i++) {
      if (IS_VECTOR[i]) {
        in[i] = repeated(doubles(inputs.get(i)), columns, tile);
      } else {
        in[i] = doubles(inputs.get(i));
      }
    }
    final double[] numbers = new double[scalars.size()];
    for (int i = 0; i < numbers.length; i++) {
      numbers[i] = ((ScalarObject) scalars.get(i)).getDoubleValue();
    }
    final double[] result = SUMS > 0 ? null : new double[cells];
    final int tiles = (cells + tile - 1) / tile;
    int parts = threads > 1 && cells >= LEAST_SHARED ? Math.min(tiles, threads) : 1;
    final double[][] sums = new double[parts][SUMS * tile];
    if (parts == 1) {
      part(result, sums[0], 0, cells, tile, in, numbers);
    } else {
      List tasks = new ArrayList();
      for (int p = 0; p < parts; p++) {
        final double[] own = sums[p];
        final int from = (int) ((long) tiles * p / parts) * tile;
        final int to = Math.min((int) ((long) tiles * (p + 1) / parts) * tile, cells);
        tasks.add(new Callable() {
          public Object call() {
            part(result, own, from, to, tile, in, numbers);
            return null;
          }
        });
      }
      CommonThreadPool.invokeAndShutdown(CommonThreadPool.get(threads), tasks);
    }
    if (SUMS == 0) {
      return block(first.getNumRows(), columns, result);
    }
    final double[] total = new double[SUMS * columns];
    for (int p = 0; p < parts; p++) { // in the order of the parts, whichever thread was first
      for (int k = 0; k < SUMS; k++) {
        for (int i = 0; i < tile; i++) {
          total[k * columns + i % columns] += sums[p][k * tile + i];
        }
      }
    }
    final MatrixBlock block = block(SUMS, columns, total);
    block.recomputeNonZeros();
    return block;
  }

  private static void part(
      double[] result, double[] sums, int from, int to, int tile, double[][] in, double[] numbers) {
    if (SUMS == 0) {
      for (int start = from; start < to; start += tile) {
        map(result, start, start, Math.min(tile, to - start), in, numbers);
      }
      return;
    }
    for (int start = from; start < to; start += tile) {
      add(sums, start, Math.min(tile, to - start), tile, in, numbers);
    }
  }

  /** Computes `count` values from the inputs at `from`, and writes them to `result` at `to`. */
  private static void map(double[] result, int to, int from, int count, double[][] in, double[] numbers) {
    $ARRAYS$
    int i = 0;
    for (; i <= count - LANES; i += LANES) {
      $LOADS$
      $VALUE$.intoArray(result, to + i);
    }
    if (i < count) {
      VectorMask mask = SPECIES.indexInRange(i, count);
      $MASKED_LOADS$
      $VALUE$.intoArray(result, to + i, mask);
    }
  }

  /** Computes `count` values for each sum from the inputs at `from`, and adds them to its `tile` values in `sums`. */
  private static void add(double[] sums, int from, int count, int tile, double[][] in, double[] numbers) {
    $ARRAYS$
    int i = 0;
    for (; i <= count - LANES; i += LANES) {
      $LOADS$
      $ADD$
    }
    if (i < count) {
      VectorMask mask = SPECIES.indexInRange(i, count);
      $MASKED_LOADS$
      $MASKED_ADD$
    }
  }

  private static double[] repeated(double[] values, int columns, int length) {
    double[] tile = new double[length];
    for (int i = 0; i < length; i += columns) {
      System.arraycopy(values, 0, tile, i, columns);
    }
    return tile;
  }
}
