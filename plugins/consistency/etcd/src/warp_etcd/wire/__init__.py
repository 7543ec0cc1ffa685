"""Messages of etcd's API, generated from `etcd.proto`."""
