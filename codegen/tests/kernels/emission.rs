//! The stage itself: the same kernels give the same bytes, on any thread; every level is its own.

use llmc_codegen::kernel::{Elem, KernelBuilder};
use llmc_codegen::kernels::{Activation, Epilogue, Linear};
use llmc_codegen::llvm::Object;
use llmc_codegen::mlir::Session;
use llmc_codegen::target::FeatureLevel;
use llmc_codegen::targets::x86_64::X86_64_LINUX;

fn object(level: &'static FeatureLevel) -> Vec<u8> {
    let session = Session::new();
    let mut builder = KernelBuilder::new(&session, level).export_kernels();
    for activation in Activation::ALL {
        Linear {
            k: 64,
            m: 128,
            x: Elem::F32,
            x_stride: 64,
            elem: Elem::F16,
            out: Epilogue {
                width: 100,
                y_stride: 112,
                bias: true,
                activation,
                glu: false,
                limit: None,
                shift: 0.0,
                scale: None,
                softcap: None,
                residual: None,
            },
        }
        .emit(&mut builder);
    }
    let module = builder.finish().expect("the module lowers");
    Object::emit(&module, &X86_64_LINUX, level)
        .expect("the module compiles")
        .bytes
}

#[test]
fn same_bytes_on_any_thread() {
    let levels = X86_64_LINUX.levels;
    let alone: Vec<Vec<u8>> = levels.iter().map(object).collect();
    let together: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let running: Vec<_> = levels
            .iter()
            .map(|level| scope.spawn(move || object(level)))
            .collect();
        running
            .into_iter()
            .map(|t| t.join().expect("no panic"))
            .collect()
    });
    assert!(alone == together, "the bytes depend on the thread");
    assert!(alone[0] != alone[1], "levels differ in code");
}
