//! A unit with removable media, as the block graph sees it.

use super::mmc;
use super::unit::{Kind, LogicalUnit};
use crate::block::Disk;
use crate::block::graph::Tray;
use std::sync::Arc;

impl Tray for LogicalUnit {
    fn is_open(&self) -> bool {
        self.tray_open()
    }

    fn is_locked(&self) -> bool {
        self.locked()
    }

    fn request_eject(&self, force: bool) {
        if force {
            self.unlock();
        }
        self.set_media_event(mmc::EJECT_REQUEST);
    }

    fn set_open(&self, open: bool) {
        self.set_tray_open(open);
    }

    fn writes(&self) -> bool {
        self.kind() == Kind::Disk
    }

    fn set_medium(&self, medium: Option<Arc<dyn Disk>>) {
        LogicalUnit::set_medium(self, medium);
    }
}
