//! A value is used after its section has ended.

fn main() {
    let cell = rcu::RcuCell::new(1);
    let value = {
        let guard = rcu::read();
        cell.read(&guard)
    };
    println!("{value}");
}
