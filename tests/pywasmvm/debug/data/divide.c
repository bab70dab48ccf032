static int divide(int a, int b) {
  return a / b;
}
int deeper(int x) {
  int y = x - 3;
  return divide(10, y);
}
__attribute__((export_name("go"))) int go(int x) {

  return deeper(x) + 1;
}
