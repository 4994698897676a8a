//! A task takes the writer of a list along to another context.

async fn take_along(list: &rcu::RcuList<u32>, context: &reactor::Context) {
    let mut writer = list.write();
    reactor::hop(context).await;
    writer.push_back(1);
}

fn must_be_send<T: Send>(_: T) {}

fn main() {
    let context = reactor::current();
    let list = rcu::RcuList::new();
    must_be_send(take_along(&list, &context));
}
