"""Order messages as a hospital's system sends them."""

from __future__ import annotations

from service.protocols.er7 import encoded

SITE = "lao-cai"
PERSON = "Người^Nghiệm^Được Khám Thử^^Bà"
ORDER = (
    "MSH|^~\\&|HIS|BV|SANGLOC|SL|20261121081500+0700||ORM^O01^ORM_O01|{control}|P|2.5.1||||||UNICODE UTF-8",
    f"PID|1||VN-0042^^^BV^PI||{PERSON}^^L||19610530|F",
    "PV1|1|O||||||D-9^Khác^Bác sĩ",
    "ORC|{order}|ORD-1^HIS|||||||20261121080000|||D-7^Thử Nghiệm^Tuyến Dưới^^^BS.|||||||||Trạm y tế thử nghiệm",
    "OBR|1|ORD-1^HIS|F-1|36643-5^XR^LN||||||||||||||{accession}|||||||||||||^Khám sức khỏe \\T\\ ho",
)
MSH = ORDER[0].format(control="1")


def order(control="1", order="NW", accession="ACC-1", **changed):
    """An order message; ``changed`` replaces segments by name."""
    filled = [each.format(control=control, order=order, accession=accession) for each in ORDER]
    segments = [changed.get(each[:3], each) for each in filled]
    return encoded([each for each in segments if each])
