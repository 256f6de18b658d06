"""The log on Kafka, by aiokafka, and by librdkafka where it is written to."""

from gatepost.backends.log_kafka.closed_connection import mend_closed_connections
from gatepost.backends.log_kafka.log import KafkaLog

__all__ = ["KafkaLog"]

mend_closed_connections()
