//! x
fn main() {
    let t = tch::Tensor::ones([2, 3], (tch::Kind::Float, tch::Device::Cpu));
    t.print();
}
