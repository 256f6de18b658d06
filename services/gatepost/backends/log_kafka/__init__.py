"""The log on Kafka, by aiokafka."""

from gatepost.backends.log_kafka.closed_connection import tell_as_kafka_error
from gatepost.backends.log_kafka.log import KafkaLog

__all__ = ["KafkaLog"]

tell_as_kafka_error()
