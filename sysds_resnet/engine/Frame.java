  // What all operators have in common: a part of a class, which operators.py puts into each of them.

  public String getSpoofType() {
    return "$NAME$";
  }

  public SpoofCUDAOperator createCUDAInstrcution(Integer id, SpoofCUDAOperator.PrecisionProxy precision) {
    throw new DMLRuntimeException("$NAME$ is for CPUs");
  }

  public MatrixBlock execute(ArrayList inputs, ArrayList scalars, MatrixBlock out) {
    return execute(inputs, scalars, out, 1);
  }

  private static double[] dense(Object input) {
    final MatrixBlock matrix = (MatrixBlock) input;
    MatrixBlock block = matrix;
    if (block.isInSparseFormat() || block.getDenseBlock() == null) {
      block = new MatrixBlock(matrix.getNumRows(), matrix.getNumColumns(), false);
      block.copy(matrix, false);
      block.allocateDenseBlock(false);
    }
    return block.getDenseBlockValues();
  }
