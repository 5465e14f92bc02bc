//! What the `OpenAPI` document says besides the routes.

use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Components, InfoBuilder, OpenApi, OpenApiBuilder, SecurityRequirement};

const DESCRIPTION: &str = "The API of one orchestrator. On its unix socket the file system decides who may speak; on a \
    port, a token of an owner's: that in the file `token` of the data folder, or one of `/v1/tokens`.";

/// The document without its routes.
pub(super) fn about() -> OpenApi {
    let info = InfoBuilder::new().title("mayfly").version("v1").description(Some(DESCRIPTION)).build();
    let mut components = Components::new();
    components.add_security_scheme("token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    let token = SecurityRequirement::new("token", Vec::<String>::new());
    OpenApiBuilder::new().info(info).components(Some(components)).security(Some([token])).build()
}
