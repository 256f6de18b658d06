"""What the services need from the outside, as typing.Protocols with the values that cross them."""
