package codegen;

$IMPORTS$

/**
 * `first_of` of dml/layers/pixels/pixelwise.dml, which gives its first input as it is, as an operator of the engine.
 * The memory of the second serves for later results.
 *
 * The text is a template: templates.py replaces the names between dollar signs by what one function needs.
 */
public final class $NAME$ extends SpoofOperator {
  $FRAME$

  $STORAGE$

  public MatrixBlock execute(ArrayList inputs, ArrayList scalars, MatrixBlock unused, int threads) {
    final MatrixBlock first = (MatrixBlock) inputs.get(0);
    final float[] values = taken(first);
    if (values == null) {
      return first; // a matrix of the engine, which no operator changes
    }
    keepTaken(inputs);
    return block(first.getNumRows(), first.getNumColumns(), values);
  }
}
