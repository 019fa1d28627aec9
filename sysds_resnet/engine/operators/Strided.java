package codegen;

$IMPORTS$

/**
 * `pixels` or `pixels_backward` of dml/layers/pixels/conv2d.dml, which copies rows, as an operator of the engine.
 *
 * The text is a template: templates.py replaces the names between dollar signs by what one function needs.
 */
public final class $NAME$ extends SpoofOperator {
  private static final boolean BACKWARD = $BACKWARD$;

  $FRAME$

  $STORAGE$

  /** Takes X, or dout in the backward pass, as its input, and height, width and stride as scalars. */
  public MatrixBlock execute(ArrayList inputs, ArrayList scalars, MatrixBlock unused, int threads) {
    final MatrixBlock input = (MatrixBlock) inputs.get(0);
    final int columns = input.getNumColumns();
    final int height = number(scalars, 0), width = number(scalars, 1), stride = number(scalars, 2);
    final int few = ((height - 1) / stride + 1) * ((width - 1) / stride + 1), all = height * width;
    final int n = input.getNumRows() / (BACKWARD ? few : all), rows = n * (BACKWARD ? all : few);
    final int cells = cells(rows, columns);
    final float[] stored = stored(input);
    // bf16 values are copied in pairs, if pixels have an even number of them and the result can tell that it has pairs
    final boolean paired = stored != null && stored.length < cells(input) && columns % 2 == 0 && pairs(cells) < cells;
    final $REAL$[] from = paired ? ($REAL$[]) (Object) stored : $REAL$s(input);
    final $REAL$[] to = new $REAL$[paired ? pairs(cells) : cells];
    final int step = paired ? columns / 2 : columns;
    int at = 0;
    for (int row = 0; row < n * height; row += row % height + stride < height ? stride : height - row % height) {
      for (int column = 0; column < width; column += stride, at += step) {
        final int pixel = (row * width + column) * step;
        System.arraycopy(from, BACKWARD ? at : pixel, to, BACKWARD ? pixel : at, step);
      }
    }
    keepTaken(inputs);
    return block(rows, columns, to);
  }
}
