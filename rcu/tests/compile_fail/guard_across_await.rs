//! A task that may hop holds a read-side section across an `.await`.

fn spawn(context: &reactor::Context, task: impl Future<Output = ()> + Send + 'static) {
    context.spawn("may hop", task).detach();
}

fn main() {
    spawn(&reactor::current(), async {
        let guard = rcu::read();
        reactor::yield_now().await;
        drop(guard);
    });
}
