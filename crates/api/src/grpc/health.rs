//! `grpc.health.v1`: whether the node takes work.
//!
//! It is answered to everybody, without a token and to the last moment: whoever asks is a load balancer or a supervisor.

use tokio::sync::watch;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::call::client;
use super::stream::{Source, sent};
use crate::fault::{Fault, FaultCode};
use crate::limits::StreamPlace;
use crate::service::{Service, Stage};

/// What has a health: the node as a whole, and its services, which stand and fall with it.
const NAMES: [&str; 3] = ["", "tinkerbell.v1.JobService", "tinkerbell.v1.NodeService"];

pub(super) struct HealthOf(pub(super) Service);

fn serving(stage: Stage) -> ServingStatus {
    match stage {
        Stage::Serving => ServingStatus::Serving,
        Stage::Draining | Stage::Stopping | Stage::Over => ServingStatus::NotServing,
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

#[tonic::async_trait]
impl Health for HealthOf {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let name = request.into_inner().service;
        if !NAMES.contains(&name.as_str()) {
            let fault = Fault::new(FaultCode::NotFound, format!("there is no service `{name}`"));
            return Err(fault.into());
        }
        let status = serving(*self.0.stage().borrow());
        Ok(Response::new(response(status)))
    }

    type WatchStream = BoxStream<HealthCheckResponse>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let source = Changes {
            place: self.0.stream_place(client(&request))?,
            stage: self.0.stage(),
            is_known: NAMES.contains(&request.get_ref().service.as_str()),
            told: None,
            ended: false,
        };
        Ok(Response::new(sent(source, self.0.limits().stall)))
    }
}

struct Changes {
    #[expect(dead_code, reason = "it is held, and given back with the stream")]
    place: StreamPlace,
    stage: watch::Receiver<Stage>,
    is_known: bool,
    told: Option<ServingStatus>,
    ended: bool,
}

impl Source for Changes {
    type Message = HealthCheckResponse;

    async fn next(&mut self) -> Result<Option<HealthCheckResponse>, Fault> {
        loop {
            if self.ended {
                return Ok(None);
            }
            let stage = *self.stage.borrow_and_update();
            let status = match self.is_known {
                true => serving(stage),
                false => ServingStatus::ServiceUnknown,
            };
            if self.told != Some(status) {
                self.told = Some(status);
                return Ok(Some(response(status)));
            }
            if stage == Stage::Over || self.stage.changed().await.is_err() {
                self.ended = true;
                return Err(Fault::stopping());
            }
        }
    }
}
