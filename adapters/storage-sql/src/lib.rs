//! What the SQL storage adapters share: error mapping and pool watching, without a driver.
