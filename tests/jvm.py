"""How a JVM is started that does little before it ends."""

# The second compiler and a parallel collector cost more than they bring. Without the former Java has room for 48 MB of
# code, which a session fills in minutes: it then throws code away and compiles it again for as long as it lives.
SHORT_LIVED = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:ReservedCodeCacheSize=256m"
