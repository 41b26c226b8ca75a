//! What on this host stands in the way of the configuration although nothing of it is ours: firewalls of others, routes, ports. `plan`
//! and `doctor` tell of it when somebody asks; here it is looked at for status and metrics, so that somebody hears of it who
//! does not.
use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::api::plan::PlanWarning;
use shared_datapath::Control;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tracing::warn;

use crate::error::Failure;
use crate::plan::{Running, warnings};
use crate::plane::Plane;
use crate::product::Product;
use crate::reconcile::Kernel;

/// How long a look is good for while nobody changes rules. All tables and routes of the host are read.
const GOOD_FOR: Duration = Duration::from_secs(30);
/// How long a change of ours may keep us from looking, which waits for the disk: the status must not wait for that.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long it is in any case: on some hosts the rules never rest.
const KEPT: Duration = Duration::from_secs(1);

/// Knows where to look, and what was found last.
#[derive(Debug)]
pub struct Obstacles<P: Product> {
    plane: Arc<Mutex<Plane<P>>>,
    kernel: Arc<Mutex<Kernel>>,
    control: Control,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    at: Option<Instant>,
    /// Of the rules of all tables; `None` when it could not be read.
    generation: Option<u32>,
    found: Arc<[PlanWarning]>,
    /// Why there was nothing to see, which is said once.
    error: Option<String>,
}

impl<P: Product> Obstacles<P> {
    /// Nothing is looked at yet.
    pub fn new(plane: &Arc<Mutex<Plane<P>>>, held: &Plane<P>) -> Self {
        Self {
            plane: Arc::clone(plane),
            kernel: Arc::clone(held.kernel()),
            control: held.control().clone(),
            last: Mutex::default(),
        }
    }

    /// What there is now, or was within the last half minute while no rule has changed, or before a change of ours that is under
    /// way. What can't be read stands in nobody's way, as far as is known.
    pub async fn now(&self) -> Arc<[PlanWarning]> {
        let mut last = self.last.lock().await;
        let generation = self.kernel.lock().await.nftables().generation().ok();
        let age = last.at.map(|at| at.elapsed());
        let good_for = if generation == last.generation {
            GOOD_FOR
        } else {
            KEPT
        };
        if age.is_none_or(|age| age >= good_for) {
            let Ok(plane) = timeout(PATIENCE, self.plane.lock()).await else {
                return Arc::clone(&last.found);
            };
            let (found, error) = match self.look(&plane).await {
                Ok(found) => (found, None),
                Err(failure) => (Vec::new(), Some(failure.to_string())),
            };
            drop(plane);
            if let Some(error) = error
                .as_ref()
                .filter(|&error| last.error.as_ref() != Some(error))
            {
                warn!(error, "can't look for what stands in the way on this host");
            }
            *last = Last {
                at: Some(Instant::now()),
                generation,
                found: found.into(),
                error,
            };
        }
        Arc::clone(&last.found)
    }

    /// Another configuration runs: what was seen before does not count.
    pub async fn forget(&self) {
        self.last.lock().await.at = None;
    }

    async fn look(&self, plane: &Plane<P>) -> Result<Vec<PlanWarning>, Failure> {
        let device = self.control.status().await;
        let device = device.map_err(|error| Failure::other(&error))?;
        let (settings, environment, model) = (plane.settings(), plane.environment(), plane.model());
        let asked = warnings::Asked {
            settings,
            environment,
            desired: &model.desired,
            expected: &P::expected(plane.config(), environment),
            publishes: &model.publishes,
            running: Running {
                settings: Some(settings),
                device: Some(&device),
                model: Some(model),
            },
        };
        let mut kernel = self.kernel.lock().await;
        let actual = kernel.netlink().read(&model.desired).await;
        let actual = actual.map_err(|error| Failure::other(&error))?;
        warnings::on_this_host(&asked, &actual, &mut kernel).await
    }
}
