"""Access: keys, hosts, origins, tickets, rights of keys, turns among addresses and owners."""
