"""Networks for small pictures, one family a file."""
