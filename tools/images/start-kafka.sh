# Starts one Kafka broker on the settings in $KAFKA_SETTINGS; formats an empty data folder first. A JVM flag
# set for a broker with little to do: the serial collector, and only the first compiler.
set -eu
settings=${KAFKA_SETTINGS:-/etc/kafka/server.properties}
cluster=${KAFKA_CLUSTER_ID:-Z2F0ZXBvc3Qta3ViZS1kZQ}
set -- /usr/lib/jvm/*/bin/java
java=$1
flags="-Xms64m -Xmx${KAFKA_HEAP:-256m} -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:+ExitOnOutOfMemoryError
  -Djava.awt.headless=true -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -Dorg.slf4j.simpleLogger.showDateTime=true"
data=$(/bin/busybox sed -n 's/^log\.dirs=//p' "$settings")
if [ ! -e "$data/meta.properties" ]; then
  # shellcheck disable=SC2086
  "$java" $flags -cp '/opt/kafka/libs/*' kafka.tools.StorageTool format -t "$cluster" -c "$settings"
fi
# shellcheck disable=SC2086
exec "$java" $flags -cp '/opt/kafka/libs/*' kafka.Kafka "$settings"
