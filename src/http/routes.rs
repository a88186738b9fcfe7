//! The table of operations: each line has a path, a method, the input, and the handler.

use std::borrow::Cow;

use hyper::Method;

use super::catalogue::Kind;
use super::handlers::{self, Answer};
use super::input::unescape;
use super::problem::Problem;
use super::request::{Input, WholeRequest};
use crate::engine::Engine;

/// A line of the table.
pub(super) struct Route {
    pub(super) method: Method,
    /// Parts that begin with `:` match any value.
    pub(super) path: &'static str,
    pub(super) input: Input,
    pub(super) operation: Operation,
}

macro_rules! operations {
    ($($(#[$note:meta])* $operation:ident = $method:ident $path:literal $input:ident => $handler:ident;)*) => {
        #[derive(Debug, Clone, Copy)]
        pub(super) enum Operation {
            $($(#[$note])* $operation,)*
        }

        impl Operation {
            /// Its name for operators, which some lines have in common.
            pub(super) fn name(self) -> &'static str {
                let handler = match self { $(Self::$operation => stringify!($handler),)* };
                match handler {
                    "take_back" => "return",
                    "rule" => "set_rules",
                    other => other,
                }
            }

            pub(super) async fn carry_out(self, engine: &Engine, request: WholeRequest) -> Answer {
                match self {
                    $(Self::$operation => handlers::$handler(engine, request).await,)*
                }
            }
        }

        /// The number of lines.
        pub(super) const COUNT: usize = [$(stringify!($operation),)*].len();

        pub(super) static ROUTES: &[Route] = &[
            $(Route {
                method: Method::$method,
                path: $path,
                input: Input::$input,
                operation: Operation::$operation,
            },)*
        ];
    };
}

// Lines of one path are one resource. If two paths match, the first wins.
operations! {
    Board       = GET  "/"                                        Query        => board;
    Live        = GET  "/livez"                                   Query        => live;
    Ready       = GET  "/readyz"                                  Query        => ready;
    Metrics     = GET  "/metrics"                                 Query        => metrics;
    Seed        = POST "/api/inventory/seed"                      Json         => seed;
    /// A SKU may have the same name as the endpoint above; also below.
    StockOfSeed = GET  "/api/inventory/seed"                      Query        => stock;
    AdjustMany  = POST "/api/inventory/adjust"                    Json         => adjust_many;
    StockOfAdjust = GET "/api/inventory/adjust"                   Query        => stock;
    Skus        = GET  "/api/inventory"                           Query        => skus;
    Adjust      = POST "/api/inventory/:sku/adjust"               Json         => adjust;
    Rule        = PUT  "/api/inventory/:sku/rules"                Json         => rule;
    Stock       = GET  "/api/inventory/:sku"                      Query        => stock;
    Hold        = POST "/api/reservations/hold"                   Json         => hold;
    Active      = GET  "/api/reservations"                        Query        => active;
    Reservation = GET  "/api/reservations/:reservationId"         Query        => reservation;
    Confirm     = POST "/api/reservations/:reservationId/confirm" OptionalJson => confirm;
    Release     = POST "/api/reservations/:reservationId/release" OptionalJson => release;
    Extend      = POST "/api/reservations/:reservationId/extend"  Json         => extend;
    Change      = POST "/api/reservations/:reservationId/change"  Json         => change;
    Return      = POST "/api/reservations/:reservationId/return"  Json         => take_back;
    HoldCart    = POST "/api/carts/:cartId/hold"                  Json         => hold_cart;
    ConfirmCart = POST "/api/carts/:cartId/confirm"               OptionalJson => confirm_cart;
    ReleaseCart = POST "/api/carts/:cartId/release"               OptionalJson => release_cart;
    ExtendCart  = POST "/api/carts/:cartId/extend"                Json         => extend_cart;
    Cart        = GET  "/api/carts/:cartId"                       Query        => cart;
    Audit       = GET  "/api/audit"                               Query        => audit;
    Events      = GET  "/api/events"                              Query        => events;
}

impl Route {
    /// The route of a method and a path, which may be escaped.
    ///
    /// # Errors
    /// 400 when an escape is broken, 404 for a path that no route has, 405 for a method that its routes do not have.
    pub(super) fn find(method: &Method, path: &str) -> Result<&'static Self, Problem> {
        let mut parts = [const { Cow::Borrowed("") }; MOST_PARTS + 1];
        let mut count = 0;
        for part in path.split('/').skip(1) {
            let part = unescape(part)?;
            // Longer paths match no route, but may still be malformed.
            if let Some(place) = parts.get_mut(count) {
                *place = part;
                count += 1;
            }
        }
        let Some(first) = ROUTES.iter().find(|route| route.matches(&parts[..count])) else {
            return Err(Problem::new(Kind::UnknownPath, "there is nothing at this path"));
        };
        let mut resource = ROUTES.iter().filter(|route| route.path == first.path);
        match resource.find(|route| route.answers(method)) {
            Some(route) => Ok(route),
            None => Err(Problem::method_not_allowed(&allow(first.path))),
        }
    }

    fn matches(&self, parts: &[Cow<'_, str>]) -> bool {
        let mut parts = parts.iter();
        let fits = |expected: &str| parts.next().is_some_and(|part| expected.starts_with(':') || *part == expected);
        self.path.split('/').skip(1).all(fits) && parts.next().is_none()
    }

    /// GET handlers also answer HEAD.
    fn answers(&self, method: &Method) -> bool {
        self.method == *method || self.method == Method::GET && *method == Method::HEAD
    }
}

/// The number of parts of the longest path.
const MOST_PARTS: usize = 4;

/// The methods of a resource, as `Allow` lists them.
fn allow(path: &str) -> String {
    let resource = ROUTES.iter().filter(|route| route.path == path);
    let mut methods: Vec<&str> = resource.map(|route| route.method.as_str()).collect();
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    methods.sort_unstable();
    methods.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const METHODS: [Method; 9] = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::PATCH,
        Method::OPTIONS,
        Method::TRACE,
        Method::CONNECT,
    ];

    /// Calls each resource with each method: it is answered, or `Allow` lists the methods that are.
    #[test]
    fn resources_by_methods() {
        for route in ROUTES {
            let allowed = allow(route.path);
            for method in METHODS {
                match Route::find(&method, route.path) {
                    Ok(found) => {
                        assert_eq!(found.path, route.path);
                        assert!(allowed.split(", ").any(|name| name == method.as_str()), "{method} {}", route.path);
                    }
                    Err(problem) => {
                        assert!(!allowed.contains(method.as_str()), "{method} {}", route.path);
                        let response = problem.into_response();
                        assert_eq!(response.status(), 405);
                        assert_eq!(response.headers()["allow"], allowed);
                    }
                }
            }
        }
    }

    /// No line hides another, and none has more parts than the router compares.
    #[test]
    fn every_route_is_found_by_its_own_path() {
        for route in ROUTES {
            let found = Route::find(&route.method, route.path).unwrap();
            assert!(std::ptr::eq(found, route), "{} {}", route.method, route.path);
            assert!((1..=MOST_PARTS).contains(&route.path.split('/').skip(1).count()), "{}", route.path);
        }
    }

    #[test]
    fn a_path_is_matched_without_its_escapes_and_in_whole() {
        let find = |path: &str| Route::find(&Method::GET, path).map(|route| route.path);
        assert_eq!(find("/api/inventory/a%2Fb").unwrap(), "/api/inventory/:sku");
        assert_eq!(find("/%61pi/audit").unwrap(), "/api/audit");
        for unknown in ["", "*", "/api", "/api/", "//api/audit", "/api/audit/", "/API/audit", "/api/audit/a/b/c/d"] {
            assert_eq!(find(unknown).unwrap_err().into_response().status(), 404, "{unknown}");
        }
        for broken in ["/%zz", "/api/audit/a/b/c/d/e/%"] {
            assert_eq!(find(broken).unwrap_err().into_response().status(), 400, "{broken}");
        }
    }
}
