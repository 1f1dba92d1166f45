"""Heads by an MQTT broker, beside the poll: who publishes puts each there, devices hear of it at once.

    broker      where a broker is and how it is spoken to; paho-mqtt, bounded
    putting     the publisher's side

A broker is not trusted: what it brings is a signed head, judged like one from an origin (edged/sync/announced.py).
"""
