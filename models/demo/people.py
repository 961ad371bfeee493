"""The invented persons of the demo pictures, and the pictures: numbers only.
draw.py draws them. The persons' measures were tried at random and kept where
face embedders found the persons less alike."""

# Units are decimetres and linear colours; what a person does not name is so:
BASE = dict(
    skull_w=0.75, skull_h=0.86, face_w=0.60, jaw_w=0.44, jaw_y=-1.10, chin_w=0.07, chin_z=0.74,
    cheekbone_x=0.38, cheekbone=0.22, cheek=0.24, brow_bone=0.10, eye_x=0.315, eye_z=0.585,
    eye_r=0.128, eye_open=0.50, slant=0.05, eye_shade=0.16, lashes=0.85, bridge=0.065,
    bridge_z=0.70, nose_y=-0.48, nose_z=1.02, nose_tip=0.10, wing_x=0.11, mouth_y=-0.70,
    mouth_w=0.24, mouth_z=0.83, mouth_bend=0.0, lip=0.042, neck=0.40, shoulders=1.55, collar=0.04,
    skin=(0.62, 0.42, 0.32), blush=0.6, freckles=0, shine=0.12, lips=(0.50, 0.20, 0.18),
    brow=(0.06, 0.04, 0.03), brow_y=0.19, brow_arch=0.045, brow_tilt=0.0, brow_thick=0.042,
    brow_dark=0.85, iris=(0.16, 0.09, 0.05), age=0.2, beard=0, beard_colour=(0.05, 0.035, 0.03),
    hair="short", hair_rough=0.012, hair_thick=0.10, hair_colour=(0.07, 0.045, 0.03),
    hairline=0.52, part=0.0, hair_low=-0.3, hair_wide=0.0, glasses=False,
    frame=(0.02, 0.02, 0.02), cloth=(0.15, 0.2, 0.3))

PEOPLE = {
    "ada": dict(
        skull_w=0.816, skull_h=0.8, face_w=0.53, jaw_w=0.335, jaw_y=-1.2, chin_w=0.11,
        cheekbone_x=0.367, cheekbone=0.203, cheek=0.18, brow_bone=0.138, eye_x=0.353, eye_r=0.124,
        eye_open=0.62, slant=0.15, eye_shade=0.159, lashes=1.0, bridge_z=0.641, nose_y=-0.45,
        nose_z=0.94, nose_tip=0.08, wing_x=0.15, mouth_y=-0.775, mouth_w=0.255, mouth_z=0.79,
        mouth_bend=-0.2, lip=0.05, neck=0.34, shoulders=1.4, skin=(0.7, 0.48, 0.38), freckles=0.4,
        lips=(0.6, 0.2, 0.2), brow=(0.16, 0.07, 0.03), brow_arch=0.043, brow_tilt=-0.009,
        brow_thick=0.028, brow_dark=0.689, iris=(0.12, 0.22, 0.13), age=0.11, hair="long",
        hair_thick=0.13, hair_colour=(0.22, 0.09, 0.03), hairline=0.35, part=0.25, hair_low=-1.5,
        hair_wide=0.12, cloth=(0.08, 0.25, 0.22)),
    "ben": dict(
        skull_w=0.822, skull_h=0.8, face_w=0.63, jaw_w=0.422, jaw_y=-1.142, chin_w=0.109,
        chin_z=0.773, cheekbone_x=0.37, cheekbone=0.188, cheek=0.199, brow_bone=0.14, eye_x=0.28,
        eye_r=0.139, eye_open=0.434, slant=0.04, eye_shade=0.095, bridge=0.05, bridge_z=0.62,
        nose_y=-0.464, nose_z=0.94, nose_tip=0.122, wing_x=0.148, mouth_y=-0.66, mouth_w=0.266,
        mouth_z=0.867, mouth_bend=0.011, lip=0.058, neck=0.46, shoulders=1.75,
        skin=(0.2, 0.105, 0.065), shine=0.2, lips=(0.26, 0.1, 0.09), brow=(0.015, 0.01, 0.01),
        brow_y=0.188, brow_arch=0.02, brow_tilt=-0.03, brow_thick=0.043, brow_dark=0.89,
        iris=(0.05, 0.03, 0.02), age=0.29, beard=0.85, beard_colour=(0.012, 0.01, 0.01),
        hair_rough=0.02, hair_thick=0.06, hair_colour=(0.012, 0.01, 0.01), hairline=0.396,
        cloth=(0.6, 0.55, 0.45)),
    "chen": dict(
        skull_w=0.763, skull_h=0.821, face_w=0.64, jaw_w=0.353, jaw_y=-1.104, chin_w=0.14,
        chin_z=0.66, cheekbone_x=0.426, cheekbone=0.265, cheek=0.212, brow_bone=0.067, eye_x=0.283,
        eye_r=0.137, eye_open=0.522, slant=-0.12, eye_shade=0.121, bridge=0.062, bridge_z=0.707,
        nose_y=-0.44, nose_z=0.94, nose_tip=0.13, wing_x=0.093, mouth_y=-0.69, mouth_w=0.193,
        mouth_z=0.79, mouth_bend=0.3, lip=0.044, neck=0.33, shoulders=1.35,
        skin=(0.66, 0.46, 0.32), lips=(0.62, 0.17, 0.18), brow=(0.03, 0.02, 0.02), brow_y=0.267,
        brow_arch=0.05, brow_tilt=0.036, brow_thick=0.025, brow_dark=0.95, iris=(0.06, 0.03, 0.02),
        age=0.29, hair="long", hair_thick=0.12, hair_colour=(0.015, 0.012, 0.012), hairline=0.32,
        hair_low=-0.85, hair_wide=0.05, glasses=True, cloth=(0.5, 0.08, 0.1)),
    "dov": dict(
        skull_w=0.732, skull_h=0.8, face_w=0.53, jaw_w=0.42, jaw_y=-1.156, chin_w=0.055,
        chin_z=0.726, cheekbone_x=0.387, cheekbone=0.18, cheek=0.31, brow_bone=0.14, eye_x=0.337,
        eye_r=0.131, eye_open=0.38, slant=-0.09, eye_shade=0.319, bridge=0.09, bridge_z=0.76,
        nose_y=-0.457, nose_z=1.1, nose_tip=0.122, wing_x=0.129, mouth_y=-0.78, mouth_w=0.2,
        mouth_z=0.858, mouth_bend=-0.2, lip=0.027, skin=(0.66, 0.4, 0.3), blush=0.9, shine=0.18,
        lips=(0.46, 0.22, 0.19), brow=(0.35, 0.33, 0.3), brow_y=0.163, brow_arch=0,
        brow_tilt=-0.03, brow_thick=0.051, brow_dark=0.611, iris=(0.15, 0.25, 0.38), age=0.98,
        beard=0.35, beard_colour=(0.42, 0.4, 0.38), hair="ring", hair_thick=0.08,
        hair_colour=(0.42, 0.41, 0.4), hairline=0.65, cloth=(0.06, 0.07, 0.12)),
    "eve": dict(
        skull_w=0.84, face_w=0.65, jaw_w=0.388, jaw_y=-1.113, chin_w=0.045, chin_z=0.789,
        cheekbone_x=0.413, cheekbone=0.223, brow_bone=0.099, eye_x=0.337, eye_r=0.115,
        eye_open=0.38, slant=0.019, eye_shade=0.32, lashes=1.0, bridge=0.05, bridge_z=0.73,
        nose_y=-0.485, nose_z=1.1, nose_tip=0.08, wing_x=0.114, mouth_y=-0.685, mouth_w=0.262,
        mouth_z=0.791, mouth_bend=0.172, lip=0.055, neck=0.35, shoulders=1.4,
        skin=(0.38, 0.22, 0.14), lips=(0.4, 0.09, 0.13), brow=(0.02, 0.015, 0.012), brow_y=0.27,
        brow_arch=0.077, brow_tilt=0.03, brow_thick=0.045, brow_dark=0.774,
        iris=(0.09, 0.05, 0.03), age=0.3, hair="bun", hair_thick=0.07,
        hair_colour=(0.02, 0.014, 0.012), hairline=0.641, hair_low=-0.45,
        cloth=(0.55, 0.35, 0.05)),
}

# Light from where, its colour, the sky's; wall in two tones; gaze in radii.
VIEW = dict(yaw=0, pitch=0, roll=0, smile=0.2, brows=0.0, eyes=1.0, gaze=(0, 0),
            light=(-0.5, 0.6, 0.9), lamp=(1.25, 1.18, 1.08), ambient=(0.42, 0.45, 0.50),
            wall=((0.45, 0.5, 0.55), (0.25, 0.28, 0.3)), seed=1)


def person(name):
    return dict(BASE, **PEOPLE[name])


def view(changes):
    return dict(VIEW, **changes)


def portrait(who, **changes):
    return dict(size=(300, 360), heads=[(who, 100, 150, 172, changes)])


# Walls and lamps that more than one picture has.
BLUE, SAND = ((0.42, 0.5, 0.58), (0.22, 0.27, 0.32)), ((0.50, 0.40, 0.26), (0.30, 0.22, 0.15))
GREEN, PALE = ((0.30, 0.42, 0.30), (0.13, 0.20, 0.15)), ((0.72, 0.70, 0.66), (0.5, 0.49, 0.47))
WARM, COOL = (1.35, 1.12, 0.86), (1.12, 1.18, 1.24)

# head: who, points a decimetre, where its middle is, how it differs from VIEW
PICTURES = {
    "ada-1": portrait("ada", yaw=-8, smile=0.45, wall=BLUE, seed=1),
    "ada-2": portrait("ada", yaw=14, pitch=3, roll=4, smile=0.05, light=(0.7, 0.5, 0.8),
                      lamp=WARM, wall=SAND, gaze=(-0.15, 0), seed=2),
    "ben-1": portrait("ben", yaw=5, smile=0.15, wall=PALE, seed=3),
    "ben-2": portrait("ben", yaw=-14, roll=-3, smile=0.5, light=(0.6, 0.6, 0.9), lamp=WARM,
                      wall=GREEN, seed=4),
    "chen-1": portrait("chen", yaw=-5, smile=0.2, wall=GREEN, seed=5),
    "chen-2": portrait("chen", yaw=13, roll=-4, smile=0.5, light=(0.3, 0.8, 0.8), lamp=COOL,
                       wall=PALE, seed=6),
    "dov-1": portrait("dov", yaw=7, smile=0.1, lamp=COOL, wall=SAND, seed=7),
    "dov-2": portrait("dov", yaw=-13, pitch=3, smile=0.4, light=(0.6, 0.4, 0.9), wall=BLUE,
                      gaze=(0.12, 0), seed=8),
    "group": dict(size=(960, 300), heads=[
        ("chen", 64, 120, 146, dict(yaw=9, smile=0.4, wall=PALE, seed=9)),
        ("eve", 64, 480, 140, dict(yaw=3, smile=0.35)),
        ("dov", 66, 838, 132, dict(yaw=-10, smile=0.25)),
        ("ben", 69, 300, 124, dict(yaw=6, roll=2, smile=0.4)),
        ("ada", 64, 660, 152, dict(yaw=-7, roll=-3, smile=0.5))]),
}
