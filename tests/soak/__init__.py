"""Hundreds of virtual hours of random faults on the real publisher, synchronisation and replica.

publishing.py  a feed by the real Publisher, which also makes mistakes and is killed, and what each version truly holds
network.py     hosts of that feed, which fail, lie and stand still, and one behind another
box.py         a device on a disk that fails, without power now and then, with a clock that is wrong
run.py         draws what happens, minute by minute, and looks whether what is served is right
"""
