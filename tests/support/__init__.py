"""What the tests share: browsers, servers, provisioning."""
