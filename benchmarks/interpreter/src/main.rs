//! usage: interpreter MODULE ARGUMENT ROUNDS: the seconds of each round of its function `run`, one a line.

use std::time::Instant;
use wasmi::{Config, Engine, Linker, Module, Store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let wasm = std::fs::read(&arguments[1])?;
    let (argument, rounds): (i32, u32) = (arguments[2].parse()?, arguments[3].parse()?);
    let mut config = Config::default();
    config.consume_fuel(true);
    let engine = Engine::new(&config);
    let module = Module::new(&engine, &wasm[..])?;
    let mut store = Store::new(&engine, ());
    store.set_fuel(u64::MAX).expect("fuel is on");
    let instance = Linker::new(&engine).instantiate(&mut store, &module)?.start(&mut store)?;
    let run = instance.get_typed_func::<i32, i32>(&store, "run")?;
    for _ in 0..rounds {
        let began = Instant::now();
        run.call(&mut store, argument)?;
        println!("{}", began.elapsed().as_secs_f64());
    }
    Ok(())
}
