"""What is measured on a clip, and whether it is good enough to be judged.

`imu_quality`: whether a motion record is evidence. Sees `clips` alone; network and deployment call it.
"""
