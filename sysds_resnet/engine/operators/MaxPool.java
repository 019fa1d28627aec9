package codegen;

import org.apache.sysds.runtime.util.CommonThreadPool;
$IMPORTS$

/**
 * A function of dml/layers/pixels/max_pool2d.dml, computed without patches on FP64 values, as an operator of the
 * engine; Pool.java is for others.
 *
 * The text is a template: templates.py replaces the names between dollar signs by what one function needs.
 */
public final class $NAME$ extends SpoofOperator {
  private static final VectorSpecies SPECIES = DoubleVector.SPECIES_PREFERRED;
  private static final int LANES = SPECIES.length();
  private static final boolean BACKWARD = $BACKWARD$;

  $FRAME$

  $STORAGE$

  /** Takes X, or dout, out and X in the backward pass, as inputs, and height, width, K and stride as scalars. */
  public MatrixBlock execute(ArrayList inputs, ArrayList scalars, MatrixBlock unused, int threads) {
    final MatrixBlock images = (MatrixBlock) inputs.get(inputs.size() - 1);
    final int columns = images.getNumColumns();
    final int height = number(scalars, 0), width = number(scalars, 1), k = number(scalars, 2);
    final int stride = number(scalars, 3);
    final int pixels = ((height - 1) / stride + 1) * ((width - 1) / stride + 1); // with padding (k - 1) / 2
    final int n = images.getNumRows() / (height * width);
    final int rows = BACKWARD ? images.getNumRows() : n * pixels;
    final int cells = cells(rows, columns);
    final double[] result = new double[cells]; // the backward pass adds to zeros
    final double[] x = doubles(images);
    final double[] dout = BACKWARD ? doubles(inputs.get(0)) : null;
    final double[] out = BACKWARD ? doubles(inputs.get(1)) : null;
    if (threads == 1 || n == 1) {
      for (int image = 0; image < n; image++) {
        image(result, dout, out, x, image, height, width, k, stride, columns);
      }
    } else {
      List tasks = new ArrayList();
      for (int i = 0; i < n; i++) {
        final int image = i;
        tasks.add(new Callable() {
          public Object call() {
            image(result, dout, out, x, image, height, width, k, stride, columns);
            return null;
          }
        });
      }
      CommonThreadPool.invokeAndShutdown(CommonThreadPool.get(threads), tasks);
    }
    return block(rows, columns, result);
  }

  private static void image(double[] result, double[] dout, double[] out, double[] x, int image, int height,
      int width, int k, int stride, int columns) {
    int[] pixels = new int[k * k];
    int rows = (height - 1) / stride + 1, at = image * rows * ((width - 1) / stride + 1) * columns;
    for (int p = 0; p < height; p += stride) {
      for (int q = 0; q < width; q += stride, at += columns) {
        int count = inside(pixels, image, p, q, height, width, k, columns);
        if (BACKWARD) {
          pass(result, dout, out, x, pixels, count, at, columns);
        } else {
          largest(result, x, pixels, count, at, columns);
        }
      }
    }
  }

  /** Puts the offsets of the pixels in the window around (p, q) into `pixels`, row by row, and gives their number. */
  private static int inside(
      int[] pixels, int image, int p, int q, int height, int width, int k, int columns) {
    int count = 0, radius = (k - 1) / 2;
    for (int i = Math.max(p - radius, 0); i <= Math.min(p + radius, height - 1); i++) {
      for (int j = Math.max(q - radius, 0); j <= Math.min(q + radius, width - 1); j++) {
        pixels[count++] = ((image * height + i) * width + j) * columns;
      }
    }
    return count;
  }

  private static void largest(double[] result, double[] x, int[] pixels, int count, int at, int columns) {
    int c = 0;
    for (; c <= columns - LANES; c += LANES) {
      DoubleVector most = DoubleVector.fromArray(SPECIES, x, pixels[0] + c);
      for (int i = 1; i < count; i++) {
        most = most.max(DoubleVector.fromArray(SPECIES, x, pixels[i] + c));
      }
      most.intoArray(result, at + c);
    }
    for (; c < columns; c++) {
      double most = x[pixels[0] + c];
      for (int i = 1; i < count; i++) {
        most = Math.max(most, x[pixels[i] + c]);
      }
      result[at + c] = most;
    }
  }

  /** Adds a window's gradients to those of the first pixels that hold its maxima. */
  private static void pass(
      double[] result, double[] dout, double[] out, double[] x, int[] pixels, int count, int at, int columns) {
    int c = 0;
    for (; c <= columns - LANES; c += LANES) {
      DoubleVector gradient = DoubleVector.fromArray(SPECIES, dout, at + c);
      DoubleVector most = DoubleVector.fromArray(SPECIES, out, at + c);
      VectorMask open = SPECIES.maskAll(true);
      for (int i = 0; i < count && open.anyTrue(); i++) {
        int pixel = pixels[i] + c;
        VectorMask here = DoubleVector.fromArray(SPECIES, x, pixel).compare(VectorOperators.EQ, most).and(open);
        DoubleVector.fromArray(SPECIES, result, pixel).add(gradient, here).intoArray(result, pixel);
        open = open.andNot(here);
      }
    }
    for (; c < columns; c++) {
      for (int i = 0; i < count; i++) {
        if (x[pixels[i] + c] == out[at + c]) {
          result[pixels[i] + c] += dout[at + c];
          break;
        }
      }
    }
  }
}
