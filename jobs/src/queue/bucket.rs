//! Buckets as object stores: S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage. Credentials, region and endpoint come
//! from the environment under the names that each service's own tools use (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT`, ..).
//! A service that ignores conditional writes is not noticed here; see [`crate::store::Store::probe`].

use std::sync::Arc;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path as ObjectPath;
use object_store::{Error as StoreError, ObjectStore};

use crate::error::{JobsError, Result};
use crate::store::objects::Objects;

/// Opens `SCHEME://BUCKET/PREFIX`.
pub(super) fn open(scheme: &str, base: &str, refused: impl Fn(&str) -> JobsError) -> Result<Objects> {
    let (_, rest) = base.split_once("://").ok_or_else(|| refused("no bucket"))?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(refused("no bucket"));
    }
    let prefix = ObjectPath::parse(prefix).map_err(|error| refused(&error.to_string()))?;
    // The first one in the process stays, which is as good: all that matters is that there is one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let built: std::result::Result<Arc<dyn ObjectStore>, StoreError> = match scheme {
        "s3" => AmazonS3Builder::from_env().with_bucket_name(bucket).build().map(|store| Arc::new(store) as _),
        "gs" => {
            GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket).build().map(|store| Arc::new(store) as _)
        }
        _ => MicrosoftAzureBuilder::from_env().with_container_name(bucket).build().map(|store| Arc::new(store) as _),
    };
    let store = built.map_err(|error| refused(&error.to_string()))?;
    Objects::of_bucket(store, prefix, base.to_owned())
}
