//! Tries whether a machine can be made: the token, the app, the regions, and a machine that is not started.

use std::collections::BTreeSet;
use std::path::PathBuf;

use mayfly_core::{Attempt, TaskId};
use mayfly_provider::{Limits, MachineSpec, ProviderError};
use uuid::Uuid;

use crate::api::{ApiError, Kind};
use crate::{Fly, NAME, destroy};

impl Fly {
    /// In the order in which one needs the other, so that the first that is wrong is told.
    pub(crate) async fn try_it(&self) -> Result<(), ProviderError> {
        let organisation = self.try_token().await?;
        self.try_app(organisation.as_deref()).await?;
        self.try_regions().await?;
        self.try_machine().await
    }

    /// The organisation that the token is of.
    async fn try_token(&self) -> Result<Option<String>, ProviderError> {
        match self.0.api.token().await {
            Ok(tokens) => Ok(tokens.tokens.into_iter().find_map(|token| token.org_slug)),
            // A token may be good, and not for asking about itself.
            Err(ApiError { kind: Kind::Forbidden | Kind::Absent, .. }) => Ok(None),
            Err(error) => Err(self.told("probe")(error)),
        }
    }

    async fn try_app(&self, organisation: Option<&str>) -> Result<(), ProviderError> {
        let Err(error) = self.0.api.app_info().await else { return Ok(()) };
        let is_elsewhere = matches!(error.kind, Kind::Forbidden | Kind::Absent);
        match (self.told("probe")(error), organisation) {
            (ProviderError::Refused { provider, reason, source }, Some(organisation)) if is_elsewhere => {
                let reason = format!("{reason} (the token is of the organisation `{organisation}`)");
                Err(ProviderError::Refused { provider, reason, source })
            }
            (error, _) => Err(error),
        }
    }

    async fn try_regions(&self) -> Result<(), ProviderError> {
        let regions = self.0.api.regions().await.map_err(self.told("probe"))?;
        let there = regions.regions.unwrap_or_default().into_iter();
        let there: BTreeSet<String> =
            there.filter(|region| region.deprecated != Some(true)).map(|region| region.code).collect();
        let unknown = self.ring().regions().iter().find(|region| !there.contains(*region)).cloned();
        // An answer without any is none.
        let Some(unknown) = unknown.filter(|_| !there.is_empty()) else { return Ok(()) };
        let there = there.into_iter().collect::<Vec<_>>().join(", ");
        let reason = format!("Fly has no region `{unknown}`; it has {there}");
        Err(ProviderError::Refused { provider: NAME, reason, source: None })
    }

    /// One that is placed and not started, which Fly does not charge for.
    async fn try_machine(&self) -> Result<(), ProviderError> {
        // Of no task, and another one each time. One that is left behind is nobody's, and the reaper's.
        let attempt = TaskId::new(Uuid::now_v7()).attempt(Attempt(0));
        let (ticket, way_out, limits) = (String::new().into(), PathBuf::new(), Limits::default());
        let spec = MachineSpec { attempt, ticket, workspace: None, tools: Vec::new(), way_out, limits };
        let mut request = self.request(&spec)?;
        request.skip_launch = true;
        let tried = self.allocate(&mut request).await;
        if let Ok(machine) = &tried {
            self.memory().knows(attempt, &machine.id, self.0.clock.now());
        }
        self.unmake(attempt).await.map_err(|error| self.failed(error))?;
        tried.map(drop)
    }

    pub(crate) fn failed(&self, error: destroy::Failed) -> ProviderError {
        match error {
            destroy::Failed::Api(error) => self.told("destroy")(error),
            destroy::Failed::Lingers(lingers) => {
                ProviderError::Unclear { call: "destroy", source: lingers.into() }
            }
        }
    }
}
