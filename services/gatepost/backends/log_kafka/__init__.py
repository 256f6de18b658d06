"""The log on Kafka, by aiokafka."""

from gatepost.backends.log_kafka.log import KafkaLog

__all__ = ["KafkaLog"]
