//! The attributes that the Basic Application Level Confidentiality Profile of DICOM PS3.15 (Annex E, Table
//! E.1-1) names, with what it and its options do to them.
//!
//! One row is a tag, the action of the Basic Profile, the options that keep the value, and the options that
//! clean it. Sorted by tag. The patterns of the table (curves, overlays, private attributes) are rules of
//! `action`. Deliberately absent: what the actions mean (`action`).

use super::action::Profile::{self, D, U, X, XD, XZ, XZD, XZU, Z, ZD};

/// Retain UIDs.
pub(super) const UIDS: u16 = 1;
/// Retain Device Identity.
pub(super) const DEVICE: u16 = 1 << 1;
/// Retain Institution Identity.
pub(super) const INSTITUTION: u16 = 1 << 2;
/// Retain Patient Characteristics.
pub(super) const PATIENT: u16 = 1 << 3;
/// Retain Longitudinal Temporal Information: kept with full dates, cleaned with modified dates.
pub(super) const DATES: u16 = 1 << 4;
/// Clean Descriptors.
pub(super) const DESCRIPTORS: u16 = 1 << 5;
/// Clean Structured Content.
pub(super) const STRUCTURED: u16 = 1 << 6;
/// Clean Graphics.
pub(super) const GRAPHICS: u16 = 1 << 7;

/// Tag, action of the Basic Profile, options that keep, options that clean.
pub(super) type Row = (u32, Profile, u16, u16);

/// The row of a tag.
pub(super) fn row(tag: u32) -> Option<&'static Row> {
    TABLE.binary_search_by_key(&tag, |row| row.0).ok().map(|at| &TABLE[at])
}

#[rustfmt::skip]
pub(super) static TABLE: &[Row] = &[
    (0x0000_1000, X, UIDS, 0), // AffectedSOPInstanceUID
    (0x0000_1001, U, UIDS, 0), // RequestedSOPInstanceUID
    (0x0002_0003, U, UIDS, 0), // MediaStorageSOPInstanceUID
    (0x0004_1511, U, UIDS, 0), // ReferencedSOPInstanceUIDInFile
    (0x0008_0012, XD, 0, DATES), // InstanceCreationDate
    (0x0008_0013, XZD, 0, DATES), // InstanceCreationTime
    (0x0008_0014, U, UIDS, 0), // InstanceCreatorUID
    (0x0008_0015, X, 0, DATES), // InstanceCoercionDateTime
    (0x0008_0017, U, UIDS, 0), // AcquisitionUID
    (0x0008_0018, U, UIDS, 0), // SOPInstanceUID
    (0x0008_0019, U, UIDS, 0), // PyramidUID
    (0x0008_0020, Z, 0, DATES), // StudyDate
    (0x0008_0021, XD, 0, DATES), // SeriesDate
    (0x0008_0022, XZ, 0, DATES), // AcquisitionDate
    (0x0008_0023, ZD, 0, DATES), // ContentDate
    (0x0008_0024, X, 0, DATES), // OverlayDate
    (0x0008_0025, X, 0, DATES), // CurveDate
    (0x0008_002A, XZD, 0, DATES), // AcquisitionDateTime
    (0x0008_0030, Z, 0, DATES), // StudyTime
    (0x0008_0031, XD, 0, DATES), // SeriesTime
    (0x0008_0032, XZ, 0, DATES), // AcquisitionTime
    (0x0008_0033, ZD, 0, DATES), // ContentTime
    (0x0008_0034, X, 0, DATES), // OverlayTime
    (0x0008_0035, X, 0, DATES), // CurveTime
    (0x0008_0050, Z, 0, 0), // AccessionNumber
    (0x0008_0054, X, 0, DEVICE), // RetrieveAETitle
    (0x0008_0055, X, 0, DEVICE), // StationAETitle
    (0x0008_0058, U, UIDS, 0), // FailedSOPInstanceUIDList
    (0x0008_0080, XZD, INSTITUTION, 0), // InstitutionName
    (0x0008_0081, X, INSTITUTION, 0), // InstitutionAddress
    (0x0008_0082, XZD, INSTITUTION, 0), // InstitutionCodeSequence
    (0x0008_0090, Z, 0, 0), // ReferringPhysicianName
    (0x0008_0092, X, 0, 0), // ReferringPhysicianAddress
    (0x0008_0094, X, 0, 0), // ReferringPhysicianTelephoneNumbers
    (0x0008_0096, X, 0, 0), // ReferringPhysicianIdentificationSequence
    (0x0008_009C, Z, 0, 0), // ConsultingPhysicianName
    (0x0008_009D, X, 0, 0), // ConsultingPhysicianIdentificationSequence
    (0x0008_0106, D, 0, DATES), // ContextGroupVersion
    (0x0008_0107, D, 0, DATES), // ContextGroupLocalVersion
    (0x0008_0201, X, 0, DATES), // TimezoneOffsetFromUTC
    (0x0008_1000, X, 0, DEVICE), // NetworkID
    (0x0008_1010, XZD, DEVICE, 0), // StationName
    (0x0008_1030, X, 0, DESCRIPTORS), // StudyDescription
    (0x0008_103E, X, 0, DESCRIPTORS), // SeriesDescription
    (0x0008_1040, X, INSTITUTION, 0), // InstitutionalDepartmentName
    (0x0008_1041, X, INSTITUTION, 0), // InstitutionalDepartmentTypeCodeSequence
    (0x0008_1048, X, 0, 0), // PhysiciansOfRecord
    (0x0008_1049, X, 0, 0), // PhysiciansOfRecordIdentificationSequence
    (0x0008_1050, X, 0, 0), // PerformingPhysicianName
    (0x0008_1052, X, 0, 0), // PerformingPhysicianIdentificationSequence
    (0x0008_1060, X, 0, 0), // NameOfPhysiciansReadingStudy
    (0x0008_1062, X, 0, 0), // PhysiciansReadingStudyIdentificationSequence
    (0x0008_1070, XZD, 0, 0), // OperatorsName
    (0x0008_1072, XD, 0, 0), // OperatorIdentificationSequence
    (0x0008_1080, X, 0, DESCRIPTORS), // AdmittingDiagnosesDescription
    (0x0008_1084, X, 0, DESCRIPTORS), // AdmittingDiagnosesCodeSequence
    (0x0008_1088, X, 0, DESCRIPTORS), // PyramidDescription
    (0x0008_1110, XZ, UIDS, 0), // ReferencedStudySequence
    (0x0008_1111, XZD, UIDS, 0), // ReferencedPerformedProcedureStepSequence
    (0x0008_1120, X, UIDS, 0), // ReferencedPatientSequence
    (0x0008_1140, XZU, UIDS, 0), // ReferencedImageSequence
    (0x0008_1155, U, UIDS, 0), // ReferencedSOPInstanceUID
    (0x0008_1195, U, UIDS, 0), // TransactionUID
    (0x0008_1301, X, 0, 0), // not in the dictionary
    (0x0008_1302, X, 0, 0), // not in the dictionary
    (0x0008_1303, X, 0, 0), // not in the dictionary
    (0x0008_1304, X, 0, 0), // not in the dictionary
    (0x0008_2111, X, 0, DESCRIPTORS), // DerivationDescription
    (0x0008_2112, XZU, UIDS, 0), // SourceImageSequence
    (0x0008_3010, U, UIDS, 0), // IrradiationEventUID
    (0x0008_4000, X, 0, DESCRIPTORS), // IdentifyingComments
    (0x0010_0010, Z, 0, 0), // PatientName
    (0x0010_0011, X, 0, 0), // not in the dictionary
    (0x0010_0012, X, 0, 0), // not in the dictionary
    (0x0010_0013, X, 0, 0), // not in the dictionary
    (0x0010_0014, X, 0, 0), // not in the dictionary
    (0x0010_0015, X, 0, 0), // not in the dictionary
    (0x0010_0016, X, 0, 0), // not in the dictionary
    (0x0010_0020, ZD, 0, 0), // PatientID
    (0x0010_0021, X, 0, 0), // IssuerOfPatientID
    (0x0010_0030, Z, 0, 0), // PatientBirthDate
    (0x0010_0032, X, 0, 0), // PatientBirthTime
    (0x0010_0040, Z, PATIENT, 0), // PatientSex
    (0x0010_0041, X, 0, 0), // not in the dictionary
    (0x0010_0042, X, 0, 0), // not in the dictionary
    (0x0010_0043, X, 0, 0), // not in the dictionary
    (0x0010_0044, X, 0, 0), // not in the dictionary
    (0x0010_0045, X, 0, 0), // not in the dictionary
    (0x0010_0046, X, 0, 0), // not in the dictionary
    (0x0010_0047, X, 0, 0), // not in the dictionary
    (0x0010_0050, X, 0, 0), // PatientInsurancePlanCodeSequence
    (0x0010_0101, X, 0, 0), // PatientPrimaryLanguageCodeSequence
    (0x0010_0102, X, 0, 0), // PatientPrimaryLanguageModifierCodeSequence
    (0x0010_1000, X, 0, 0), // OtherPatientIDs
    (0x0010_1001, X, 0, 0), // OtherPatientNames
    (0x0010_1002, X, 0, 0), // OtherPatientIDsSequence
    (0x0010_1005, X, 0, 0), // PatientBirthName
    (0x0010_1010, X, PATIENT, 0), // PatientAge
    (0x0010_1020, X, PATIENT, 0), // PatientSize
    (0x0010_1030, X, PATIENT, 0), // PatientWeight
    (0x0010_1040, X, 0, 0), // PatientAddress
    (0x0010_1050, X, 0, 0), // InsurancePlanIdentification
    (0x0010_1060, X, 0, 0), // PatientMotherBirthName
    (0x0010_1080, X, 0, 0), // MilitaryRank
    (0x0010_1081, X, 0, 0), // BranchOfService
    (0x0010_1090, X, 0, 0), // MedicalRecordLocator
    (0x0010_1100, X, 0, 0), // ReferencedPatientPhotoSequence
    (0x0010_2000, X, 0, DESCRIPTORS), // MedicalAlerts
    (0x0010_2110, X, 0, PATIENT | DESCRIPTORS), // Allergies
    (0x0010_2150, X, 0, 0), // CountryOfResidence
    (0x0010_2152, X, 0, 0), // RegionOfResidence
    (0x0010_2154, X, 0, 0), // PatientTelephoneNumbers
    (0x0010_2155, X, 0, 0), // PatientTelecomInformation
    (0x0010_2160, X, PATIENT, 0), // EthnicGroup
    (0x0010_2161, X, PATIENT, 0), // EthnicGroupCodeSequence
    (0x0010_2162, X, 0, 0), // not in the dictionary
    (0x0010_2180, X, 0, DESCRIPTORS), // Occupation
    (0x0010_21A0, X, PATIENT, 0), // SmokingStatus
    (0x0010_21B0, X, 0, DESCRIPTORS), // AdditionalPatientHistory
    (0x0010_21C0, X, PATIENT, 0), // PregnancyStatus
    (0x0010_21D0, X, 0, DATES), // LastMenstrualDate
    (0x0010_21F0, X, 0, 0), // PatientReligiousPreference
    (0x0010_2203, XZ, PATIENT, 0), // PatientSexNeutered
    (0x0010_2297, X, 0, 0), // ResponsiblePerson
    (0x0010_2299, X, 0, 0), // ResponsibleOrganization
    (0x0010_4000, X, 0, DESCRIPTORS), // PatientComments
    (0x0012_0010, D, 0, 0), // ClinicalTrialSponsorName
    (0x0012_0020, D, 0, 0), // ClinicalTrialProtocolID
    (0x0012_0021, Z, 0, 0), // ClinicalTrialProtocolName
    (0x0012_0022, X, 0, 0), // IssuerOfClinicalTrialProtocolID
    (0x0012_0023, X, 0, 0), // OtherClinicalTrialProtocolIDsSequence
    (0x0012_0030, Z, INSTITUTION, 0), // ClinicalTrialSiteID
    (0x0012_0031, Z, INSTITUTION, 0), // ClinicalTrialSiteName
    (0x0012_0032, X, 0, 0), // IssuerOfClinicalTrialSiteID
    (0x0012_0040, D, 0, 0), // ClinicalTrialSubjectID
    (0x0012_0041, X, 0, 0), // IssuerOfClinicalTrialSubjectID
    (0x0012_0042, D, 0, 0), // ClinicalTrialSubjectReadingID
    (0x0012_0043, X, 0, 0), // IssuerOfClinicalTrialSubjectReadingID
    (0x0012_0050, Z, 0, 0), // ClinicalTrialTimePointID
    (0x0012_0051, X, 0, DESCRIPTORS), // ClinicalTrialTimePointDescription
    (0x0012_0055, X, 0, 0), // IssuerOfClinicalTrialTimePointID
    (0x0012_0060, Z, INSTITUTION, 0), // ClinicalTrialCoordinatingCenterName
    (0x0012_0071, X, 0, 0), // ClinicalTrialSeriesID
    (0x0012_0072, X, 0, DESCRIPTORS), // ClinicalTrialSeriesDescription
    (0x0012_0073, X, 0, 0), // IssuerOfClinicalTrialSeriesID
    (0x0012_0081, D, INSTITUTION, 0), // ClinicalTrialProtocolEthicsCommitteeName
    (0x0012_0082, X, 0, 0), // ClinicalTrialProtocolEthicsCommitteeApprovalNumber
    (0x0012_0086, X, 0, DATES), // EthicsCommitteeApprovalEffectivenessStartDate
    (0x0012_0087, X, 0, DATES), // EthicsCommitteeApprovalEffectivenessEndDate
    (0x0014_407C, X, DEVICE, DATES), // CalibrationTime
    (0x0014_407E, X, DEVICE, DATES), // CalibrationDate
    (0x0016_002B, X, 0, DESCRIPTORS), // MakerNote
    (0x0016_004B, X, 0, DESCRIPTORS), // DeviceSettingDescription
    (0x0016_004D, X, 0, 0), // CameraOwnerName
    (0x0016_004E, X, DEVICE, 0), // LensSpecification
    (0x0016_004F, X, DEVICE, 0), // LensMake
    (0x0016_0050, X, DEVICE, 0), // LensModel
    (0x0016_0051, X, DEVICE, 0), // LensSerialNumber
    (0x0016_0070, X, 0, 0), // GPSVersionID
    (0x0016_0071, X, 0, 0), // GPSLatitudeRef
    (0x0016_0072, X, 0, 0), // GPSLatitude
    (0x0016_0073, X, 0, 0), // GPSLongitudeRef
    (0x0016_0074, X, 0, 0), // GPSLongitude
    (0x0016_0075, X, 0, 0), // GPSAltitudeRef
    (0x0016_0076, X, 0, 0), // GPSAltitude
    (0x0016_0077, X, 0, 0), // GPSTimeStamp
    (0x0016_0078, X, 0, 0), // GPSSatellites
    (0x0016_0079, X, 0, 0), // GPSStatus
    (0x0016_007A, X, 0, 0), // GPSMeasureMode
    (0x0016_007B, X, 0, 0), // GPSDOP
    (0x0016_007C, X, 0, 0), // GPSSpeedRef
    (0x0016_007D, X, 0, 0), // GPSSpeed
    (0x0016_007E, X, 0, 0), // GPSTrackRef
    (0x0016_007F, X, 0, 0), // GPSTrack
    (0x0016_0080, X, 0, 0), // GPSImgDirectionRef
    (0x0016_0081, X, 0, 0), // GPSImgDirection
    (0x0016_0082, X, 0, 0), // GPSMapDatum
    (0x0016_0083, X, 0, 0), // GPSDestLatitudeRef
    (0x0016_0084, X, 0, 0), // GPSDestLatitude
    (0x0016_0085, X, 0, 0), // GPSDestLongitudeRef
    (0x0016_0086, X, 0, 0), // GPSDestLongitude
    (0x0016_0087, X, 0, 0), // GPSDestBearingRef
    (0x0016_0088, X, 0, 0), // GPSDestBearing
    (0x0016_0089, X, 0, 0), // GPSDestDistanceRef
    (0x0016_008A, X, 0, 0), // GPSDestDistance
    (0x0016_008B, X, 0, 0), // GPSProcessingMethod
    (0x0016_008C, X, 0, 0), // GPSAreaInformation
    (0x0016_008D, X, 0, DATES), // GPSDateStamp
    (0x0016_008E, X, 0, 0), // GPSDifferential
    (0x0018_0010, ZD, 0, DESCRIPTORS), // ContrastBolusAgent
    (0x0018_0027, X, 0, DATES), // InterventionDrugStopTime
    (0x0018_0035, X, 0, DATES), // InterventionDrugStartTime
    (0x0018_1000, XZD, DEVICE, 0), // DeviceSerialNumber
    (0x0018_1002, U, UIDS | DEVICE, 0), // DeviceUID
    (0x0018_1004, X, DEVICE, 0), // PlateID
    (0x0018_1005, X, DEVICE, 0), // GeneratorID
    (0x0018_1007, X, DEVICE, 0), // CassetteID
    (0x0018_1008, X, DEVICE, 0), // GantryID
    (0x0018_1009, X, DEVICE, 0), // UniqueDeviceIdentifier
    (0x0018_100A, X, DEVICE, 0), // UDISequence
    (0x0018_100B, U, UIDS | DEVICE, 0), // ManufacturerDeviceClassUID
    (0x0018_1010, X, 0, 0), // SecondaryCaptureDeviceID
    (0x0018_1011, X, 0, 0), // HardcopyCreationDeviceID
    (0x0018_1012, X, 0, DATES), // DateOfSecondaryCapture
    (0x0018_1014, X, 0, DATES), // TimeOfSecondaryCapture
    (0x0018_1030, XD, 0, DESCRIPTORS), // ProtocolName
    (0x0018_1042, X, 0, DATES), // ContrastBolusStartTime
    (0x0018_1043, X, 0, DATES), // ContrastBolusStopTime
    (0x0018_1072, X, 0, DATES), // RadiopharmaceuticalStartTime
    (0x0018_1073, X, 0, DATES), // RadiopharmaceuticalStopTime
    (0x0018_1078, X, 0, DATES), // RadiopharmaceuticalStartDateTime
    (0x0018_1079, X, 0, DATES), // RadiopharmaceuticalStopDateTime
    (0x0018_11BB, D, 0, DESCRIPTORS), // AcquisitionFieldOfViewLabel
    (0x0018_1200, X, DEVICE, DATES), // DateOfLastCalibration
    (0x0018_1201, X, DEVICE, DATES), // TimeOfLastCalibration
    (0x0018_1202, X, DEVICE, DATES), // DateTimeOfLastCalibration
    (0x0018_1203, Z, DEVICE, DATES), // CalibrationDateTime
    (0x0018_1204, X, DEVICE, DATES), // DateOfManufacture
    (0x0018_1205, X, DEVICE, DATES), // DateOfInstallation
    (0x0018_1400, XD, 0, DESCRIPTORS), // AcquisitionDeviceProcessingDescription
    (0x0018_2042, U, UIDS, 0), // TargetUID
    (0x0018_4000, X, 0, DESCRIPTORS), // AcquisitionComments
    (0x0018_5011, X, DEVICE, 0), // TransducerIdentificationSequence
    (0x0018_700A, XD, DEVICE, 0), // DetectorID
    (0x0018_700C, XD, DEVICE, DATES), // DateOfLastDetectorCalibration
    (0x0018_700E, XD, DEVICE, DATES), // TimeOfLastDetectorCalibration
    (0x0018_9074, D, 0, DATES), // FrameAcquisitionDateTime
    (0x0018_9151, D, 0, DATES), // FrameReferenceDateTime
    (0x0018_9185, X, 0, DESCRIPTORS), // RespiratoryMotionCompensationTechniqueDescription
    (0x0018_9367, D, DEVICE, 0), // XRaySourceID
    (0x0018_9369, D, 0, DATES), // SourceStartDateTime
    (0x0018_936A, D, 0, DATES), // SourceEndDateTime
    (0x0018_9371, D, DEVICE, 0), // XRayDetectorID
    (0x0018_9373, X, DEVICE, 0), // XRayDetectorLabel
    (0x0018_937B, X, 0, DESCRIPTORS), // MultienergyAcquisitionDescription
    (0x0018_937F, X, 0, DESCRIPTORS), // DecompositionDescription
    (0x0018_9424, X, 0, DESCRIPTORS), // AcquisitionProtocolDescription
    (0x0018_9516, XD, 0, DATES), // StartAcquisitionDateTime
    (0x0018_9517, XD, 0, DATES), // EndAcquisitionDateTime
    (0x0018_9623, D, 0, DATES), // FunctionalSyncPulse
    (0x0018_9701, D, 0, DATES), // DecayCorrectionDateTime
    (0x0018_9804, D, 0, DATES), // ExclusionStartDateTime
    (0x0018_9919, ZD, 0, DATES), // InstructionPerformedDateTime
    (0x0018_9937, X, 0, DESCRIPTORS), // RequestedSeriesDescription
    (0x0018_A002, X, 0, DATES), // ContributionDateTime
    (0x0018_A003, X, 0, DESCRIPTORS), // ContributionDescription
    (0x0020_000D, U, UIDS, 0), // StudyInstanceUID
    (0x0020_000E, U, UIDS, 0), // SeriesInstanceUID
    (0x0020_0010, Z, 0, 0), // StudyID
    (0x0020_0027, X, 0, DESCRIPTORS), // PyramidLabel
    (0x0020_0052, U, UIDS, 0), // FrameOfReferenceUID
    (0x0020_0200, U, UIDS, 0), // SynchronizationFrameOfReferenceUID
    (0x0020_3401, X, DEVICE, 0), // ModifyingDeviceID
    (0x0020_3403, X, 0, DATES), // ModifiedImageDate
    (0x0020_3405, X, 0, DATES), // ModifiedImageTime
    (0x0020_3406, X, 0, 0), // ModifiedImageDescription
    (0x0020_4000, X, 0, DESCRIPTORS), // ImageComments
    (0x0020_9158, X, 0, DESCRIPTORS), // FrameComments
    (0x0020_9161, U, UIDS, 0), // ConcatenationUID
    (0x0020_9164, U, UIDS, 0), // DimensionOrganizationUID
    (0x0028_1199, U, UIDS, 0), // PaletteColorLookupTableUID
    (0x0028_1214, U, UIDS, 0), // LargePaletteColorLookupTableUID
    (0x0028_4000, X, 0, 0), // ImagePresentationComments
    (0x0032_0012, X, 0, 0), // StudyIDIssuer
    (0x0032_0032, X, 0, DATES), // StudyVerifiedDate
    (0x0032_0033, X, 0, DATES), // StudyVerifiedTime
    (0x0032_0034, X, 0, DATES), // StudyReadDate
    (0x0032_0035, X, 0, DATES), // StudyReadTime
    (0x0032_1000, X, 0, DATES), // ScheduledStudyStartDate
    (0x0032_1001, X, 0, DATES), // ScheduledStudyStartTime
    (0x0032_1010, X, 0, DATES), // ScheduledStudyStopDate
    (0x0032_1011, X, 0, DATES), // ScheduledStudyStopTime
    (0x0032_1020, X, DEVICE, 0), // ScheduledStudyLocation
    (0x0032_1021, X, 0, DEVICE), // ScheduledStudyLocationAETitle
    (0x0032_1030, X, 0, DESCRIPTORS), // ReasonForStudy
    (0x0032_1032, X, 0, 0), // RequestingPhysician
    (0x0032_1033, X, 0, 0), // RequestingService
    (0x0032_1040, X, 0, DATES), // StudyArrivalDate
    (0x0032_1041, X, 0, DATES), // StudyArrivalTime
    (0x0032_1050, X, 0, DATES), // StudyCompletionDate
    (0x0032_1051, X, 0, DATES), // StudyCompletionTime
    (0x0032_1060, XZ, 0, DESCRIPTORS), // RequestedProcedureDescription
    (0x0032_1066, X, 0, DESCRIPTORS), // ReasonForVisit
    (0x0032_1067, X, 0, DESCRIPTORS), // ReasonForVisitCodeSequence
    (0x0032_1070, X, 0, DESCRIPTORS), // RequestedContrastAgent
    (0x0032_4000, X, 0, DESCRIPTORS), // StudyComments
    (0x0034_0001, D, 0, 0), // FlowIdentifierSequence
    (0x0034_0002, D, 0, 0), // FlowIdentifier
    (0x0034_0005, D, 0, 0), // SourceIdentifier
    (0x0034_0007, D, 0, DATES), // FrameOriginTimestamp
    (0x0038_0004, X, 0, 0), // ReferencedPatientAliasSequence
    (0x0038_0010, X, 0, 0), // AdmissionID
    (0x0038_0011, X, 0, 0), // IssuerOfAdmissionID
    (0x0038_0014, X, 0, 0), // IssuerOfAdmissionIDSequence
    (0x0038_001A, X, 0, DATES), // ScheduledAdmissionDate
    (0x0038_001B, X, 0, DATES), // ScheduledAdmissionTime
    (0x0038_001C, X, 0, DATES), // ScheduledDischargeDate
    (0x0038_001D, X, 0, DATES), // ScheduledDischargeTime
    (0x0038_001E, X, 0, 0), // ScheduledPatientInstitutionResidence
    (0x0038_0020, X, 0, DATES), // AdmittingDate
    (0x0038_0021, X, 0, DATES), // AdmittingTime
    (0x0038_0030, X, 0, DATES), // DischargeDate
    (0x0038_0032, X, 0, DATES), // DischargeTime
    (0x0038_0040, X, 0, DESCRIPTORS), // DischargeDiagnosisDescription
    (0x0038_0050, X, 0, PATIENT), // SpecialNeeds
    (0x0038_0060, X, 0, 0), // ServiceEpisodeID
    (0x0038_0061, X, 0, 0), // IssuerOfServiceEpisodeID
    (0x0038_0062, X, 0, DESCRIPTORS), // ServiceEpisodeDescription
    (0x0038_0064, X, 0, 0), // IssuerOfServiceEpisodeIDSequence
    (0x0038_0300, X, 0, 0), // CurrentPatientLocation
    (0x0038_0400, X, 0, 0), // PatientInstitutionResidence
    (0x0038_0500, X, 0, PATIENT | DESCRIPTORS), // PatientState
    (0x0038_4000, X, 0, DESCRIPTORS), // VisitComments
    (0x003A_0020, X, 0, DESCRIPTORS), // MultiplexGroupLabel
    (0x003A_0203, X, 0, DESCRIPTORS), // ChannelLabel
    (0x003A_020C, X, 0, DESCRIPTORS), // ChannelDerivationDescription
    (0x003A_0310, U, UIDS, 0), // MultiplexGroupUID
    (0x003A_0314, D, 0, DATES), // ImpedanceMeasurementDateTime
    (0x003A_0329, X, 0, DESCRIPTORS), // WaveformFilterDescription
    (0x003A_032B, X, 0, DESCRIPTORS), // FilterLookupTableDescription
    (0x0040_0001, X, 0, DEVICE), // ScheduledStationAETitle
    (0x0040_0002, X, 0, DATES), // ScheduledProcedureStepStartDate
    (0x0040_0003, X, 0, DATES), // ScheduledProcedureStepStartTime
    (0x0040_0004, X, 0, DATES), // ScheduledProcedureStepEndDate
    (0x0040_0005, X, 0, DATES), // ScheduledProcedureStepEndTime
    (0x0040_0006, X, 0, 0), // ScheduledPerformingPhysicianName
    (0x0040_0007, X, 0, DESCRIPTORS), // ScheduledProcedureStepDescription
    (0x0040_0009, X, 0, 0), // ScheduledProcedureStepID
    (0x0040_000B, X, 0, 0), // ScheduledPerformingPhysicianIdentificationSequence
    (0x0040_0010, X, DEVICE, 0), // ScheduledStationName
    (0x0040_0011, X, DEVICE, 0), // ScheduledProcedureStepLocation
    (0x0040_0012, X, 0, PATIENT), // PreMedication
    (0x0040_0241, X, 0, DEVICE), // PerformedStationAETitle
    (0x0040_0242, X, DEVICE, 0), // PerformedStationName
    (0x0040_0243, X, 0, 0), // PerformedLocation
    (0x0040_0244, X, 0, DATES), // PerformedProcedureStepStartDate
    (0x0040_0245, X, 0, DATES), // PerformedProcedureStepStartTime
    (0x0040_0250, X, 0, DATES), // PerformedProcedureStepEndDate
    (0x0040_0251, X, 0, DATES), // PerformedProcedureStepEndTime
    (0x0040_0253, X, 0, 0), // PerformedProcedureStepID
    (0x0040_0254, X, 0, DESCRIPTORS), // PerformedProcedureStepDescription
    (0x0040_0275, X, 0, DESCRIPTORS), // RequestAttributesSequence
    (0x0040_0280, X, 0, DESCRIPTORS), // CommentsOnThePerformedProcedureStep
    (0x0040_0310, X, 0, DESCRIPTORS), // CommentsOnRadiationDose
    (0x0040_050A, X, 0, 0), // SpecimenAccessionNumber
    (0x0040_0512, D, 0, 0), // ContainerIdentifier
    (0x0040_0513, Z, 0, 0), // IssuerOfTheContainerIdentifierSequence
    (0x0040_051A, X, 0, DESCRIPTORS), // ContainerDescription
    (0x0040_0551, D, 0, 0), // SpecimenIdentifier
    (0x0040_0554, U, UIDS, 0), // SpecimenUID
    (0x0040_0555, XZ, 0, STRUCTURED), // AcquisitionContextSequence
    (0x0040_0556, X, 0, DESCRIPTORS), // AcquisitionContextDescription
    (0x0040_0562, Z, 0, 0), // IssuerOfTheSpecimenIdentifierSequence
    (0x0040_0600, X, 0, DESCRIPTORS), // SpecimenShortDescription
    (0x0040_0602, X, 0, DESCRIPTORS), // SpecimenDetailedDescription
    (0x0040_0610, Z, 0, STRUCTURED), // SpecimenPreparationSequence
    (0x0040_06FA, X, 0, 0), // SlideIdentifier
    (0x0040_1001, X, 0, 0), // RequestedProcedureID
    (0x0040_1002, X, 0, DESCRIPTORS), // ReasonForTheRequestedProcedure
    (0x0040_1004, X, 0, 0), // PatientTransportArrangements
    (0x0040_1005, X, 0, 0), // RequestedProcedureLocation
    (0x0040_100A, X, 0, DESCRIPTORS), // ReasonForRequestedProcedureCodeSequence
    (0x0040_1010, X, 0, 0), // NamesOfIntendedRecipientsOfResults
    (0x0040_1011, X, 0, 0), // IntendedRecipientsOfResultsIdentificationSequence
    (0x0040_1101, D, 0, 0), // PersonIdentificationCodeSequence
    (0x0040_1102, X, 0, 0), // PersonAddress
    (0x0040_1103, X, 0, 0), // PersonTelephoneNumbers
    (0x0040_1104, X, 0, 0), // PersonTelecomInformation
    (0x0040_1400, X, 0, DESCRIPTORS), // RequestedProcedureComments
    (0x0040_2001, X, 0, DESCRIPTORS), // ReasonForTheImagingServiceRequest
    (0x0040_2004, X, 0, DATES), // IssueDateOfImagingServiceRequest
    (0x0040_2005, X, 0, DATES), // IssueTimeOfImagingServiceRequest
    (0x0040_2008, X, 0, 0), // OrderEnteredBy
    (0x0040_2009, X, 0, 0), // OrderEntererLocation
    (0x0040_2010, X, 0, 0), // OrderCallbackPhoneNumber
    (0x0040_2011, X, 0, 0), // OrderCallbackTelecomInformation
    (0x0040_2016, Z, 0, 0), // PlacerOrderNumberImagingServiceRequest
    (0x0040_2017, Z, 0, 0), // FillerOrderNumberImagingServiceRequest
    (0x0040_2400, X, 0, DESCRIPTORS), // ImagingServiceRequestComments
    (0x0040_3001, X, 0, 0), // ConfidentialityConstraintOnPatientDataDescription
    (0x0040_4005, X, 0, DATES), // ScheduledProcedureStepStartDateTime
    (0x0040_4008, X, 0, DATES), // ScheduledProcedureStepExpirationDateTime
    (0x0040_4010, X, 0, DATES), // ScheduledProcedureStepModificationDateTime
    (0x0040_4011, X, 0, DATES), // ExpectedCompletionDateTime
    (0x0040_4023, U, UIDS, 0), // ReferencedGeneralPurposeScheduledProcedureStepTransactionUID
    (0x0040_4025, X, DEVICE, 0), // ScheduledStationNameCodeSequence
    (0x0040_4027, X, DEVICE, 0), // ScheduledStationGeographicLocationCodeSequence
    (0x0040_4028, X, DEVICE, 0), // PerformedStationNameCodeSequence
    (0x0040_4030, X, DEVICE, 0), // PerformedStationGeographicLocationCodeSequence
    (0x0040_4034, X, 0, 0), // ScheduledHumanPerformersSequence
    (0x0040_4035, X, 0, 0), // ActualHumanPerformersSequence
    (0x0040_4036, X, 0, 0), // HumanPerformerOrganization
    (0x0040_4037, X, 0, 0), // HumanPerformerName
    (0x0040_4050, X, 0, DATES), // PerformedProcedureStepStartDateTime
    (0x0040_4051, X, 0, DATES), // PerformedProcedureStepEndDateTime
    (0x0040_4052, X, 0, DATES), // ProcedureStepCancellationDateTime
    (0x0040_A023, X, 0, DATES), // FindingsGroupRecordingDateTrial
    (0x0040_A024, X, 0, DATES), // FindingsGroupRecordingTimeTrial
    (0x0040_A027, D, 0, 0), // VerifyingOrganization
    (0x0040_A030, D, 0, DATES), // VerificationDateTime
    (0x0040_A032, XD, 0, DATES), // ObservationDateTime
    (0x0040_A033, X, 0, DATES), // ObservationStartDateTime
    (0x0040_A034, X, 0, 0), // not in the dictionary
    (0x0040_A035, X, 0, 0), // not in the dictionary
    (0x0040_A073, D, 0, 0), // VerifyingObserverSequence
    (0x0040_A075, D, 0, 0), // VerifyingObserverName
    (0x0040_A078, X, 0, 0), // AuthorObserverSequence
    (0x0040_A07A, X, 0, 0), // ParticipantSequence
    (0x0040_A07C, X, 0, 0), // CustodialOrganizationSequence
    (0x0040_A082, Z, 0, DATES), // ParticipationDateTime
    (0x0040_A088, Z, 0, 0), // VerifyingObserverIdentificationCodeSequence
    (0x0040_A110, X, 0, DATES), // DateOfDocumentOrVerbalTransactionTrial
    (0x0040_A112, X, 0, DATES), // TimeOfDocumentCreationOrVerbalTransactionTrial
    (0x0040_A120, D, 0, DATES), // DateTime
    (0x0040_A121, D, 0, DATES), // Date
    (0x0040_A122, D, 0, DATES), // Time
    (0x0040_A123, D, 0, 0), // PersonName
    (0x0040_A124, U, 0, 0), // UID
    (0x0040_A13A, D, 0, DATES), // ReferencedDateTime
    (0x0040_A171, U, UIDS, 0), // ObservationUID
    (0x0040_A172, U, UIDS, 0), // ReferencedObservationUIDTrial
    (0x0040_A192, X, 0, DATES), // ObservationDateTrial
    (0x0040_A193, X, 0, DATES), // ObservationTimeTrial
    (0x0040_A307, X, 0, 0), // CurrentObserverTrial
    (0x0040_A352, X, 0, 0), // VerbalSourceTrial
    (0x0040_A353, X, 0, 0), // AddressTrial
    (0x0040_A354, X, 0, 0), // TelephoneNumberTrial
    (0x0040_A358, X, 0, 0), // VerbalSourceIdentifierCodeSequenceTrial
    (0x0040_A402, U, UIDS, 0), // ObservationSubjectUIDTrial
    (0x0040_A730, D, 0, STRUCTURED), // ContentSequence
    (0x0040_B020, XD, 0, 0), // WaveformAnnotationSequence
    (0x0040_B034, X, 0, 0), // not in the dictionary
    (0x0040_B036, X, 0, 0), // not in the dictionary
    (0x0040_B03B, X, 0, 0), // not in the dictionary
    (0x0040_B03F, X, 0, 0), // not in the dictionary
    (0x0040_DB06, X, 0, DATES), // TemplateVersion
    (0x0040_DB07, X, 0, DATES), // TemplateLocalVersion
    (0x0040_DB0C, U, UIDS, 0), // TemplateExtensionOrganizationUID
    (0x0040_DB0D, U, UIDS, 0), // TemplateExtensionCreatorUID
    (0x0040_E004, X, 0, DATES), // HL7DocumentEffectiveTime
    (0x0040_E012, X, 0, 0), // not in the dictionary
    (0x0042_0011, D, 0, 0), // EncapsulatedDocument
    (0x0044_0004, X, 0, DATES), // ApprovalStatusDateTime
    (0x0044_000B, X, 0, DATES), // ProductExpirationDateTime
    (0x0044_0010, X, 0, DATES), // SubstanceAdministrationDateTime
    (0x0044_0104, D, 0, DATES), // AssertionDateTime
    (0x0044_0105, X, 0, DATES), // AssertionExpirationDateTime
    (0x0050_001B, X, 0, 0), // ContainerComponentID
    (0x0050_0020, X, DEVICE, 0), // DeviceDescription
    (0x0050_0021, X, 0, DESCRIPTORS), // LongDeviceDescription
    (0x0062_0021, U, UIDS, 0), // TrackingUID
    (0x0064_0003, U, UIDS, 0), // SourceFrameOfReferenceUID
    (0x0068_6226, D, 0, DATES), // EffectiveDateTime
    (0x0068_6270, D, 0, DATES), // InformationIssueDateTime
    (0x006A_0003, D, UIDS, 0), // AnnotationGroupUID
    (0x006A_0005, D, 0, DESCRIPTORS), // AnnotationGroupLabel
    (0x006A_0006, X, 0, DESCRIPTORS), // AnnotationGroupDescription
    (0x0070_0001, D, 0, GRAPHICS), // GraphicAnnotationSequence
    (0x0070_0006, D, 0, DESCRIPTORS), // UnformattedTextValue
    (0x0070_0082, X, 0, DATES), // PresentationCreationDate
    (0x0070_0083, X, 0, DATES), // PresentationCreationTime
    (0x0070_0084, ZD, 0, 0), // ContentCreatorName
    (0x0070_0086, X, 0, 0), // ContentCreatorIdentificationCodeSequence
    (0x0070_031A, U, UIDS, 0), // FiducialUID
    (0x0070_1101, U, UIDS, 0), // PresentationDisplayCollectionUID
    (0x0070_1102, U, UIDS, 0), // PresentationSequenceCollectionUID
    (0x0072_000A, D, 0, DATES), // HangingProtocolCreationDateTime
    (0x0072_005E, D, 0, DEVICE), // SelectorAEValue
    (0x0072_005F, D, PATIENT, 0), // SelectorASValue
    (0x0072_0061, D, 0, DATES), // SelectorDAValue
    (0x0072_0063, D, 0, DATES), // SelectorDTValue
    (0x0072_0065, D, 0, 0), // SelectorOBValue
    (0x0072_0066, D, 0, DESCRIPTORS), // SelectorLOValue
    (0x0072_0068, D, 0, DESCRIPTORS), // SelectorLTValue
    (0x0072_006A, D, 0, 0), // SelectorPNValue
    (0x0072_006B, D, 0, DATES), // SelectorTMValue
    (0x0072_006C, D, 0, DESCRIPTORS), // SelectorSHValue
    (0x0072_006D, D, 0, 0), // SelectorUNValue
    (0x0072_006E, D, 0, DESCRIPTORS), // SelectorSTValue
    (0x0072_0070, D, 0, DESCRIPTORS), // SelectorUTValue
    (0x0072_0071, D, 0, 0), // SelectorURValue
    (0x0074_1234, X, 0, DEVICE), // ReceivingAE
    (0x0074_1236, X, 0, DEVICE), // RequestingAE
    (0x0088_0140, U, UIDS, 0), // StorageMediaFileSetUID
    (0x0088_0200, X, 0, 0), // IconImageSequence
    (0x0088_0904, X, 0, 0), // TopicTitle
    (0x0088_0906, X, 0, 0), // TopicSubject
    (0x0088_0910, X, 0, 0), // TopicAuthor
    (0x0088_0912, X, 0, 0), // TopicKeywords
    (0x0100_0420, X, 0, DATES), // SOPAuthorizationDateTime
    (0x0400_0100, U, 0, 0), // DigitalSignatureUID
    (0x0400_0105, D, 0, DATES), // DigitalSignatureDateTime
    (0x0400_0115, D, 0, 0), // CertificateOfSigner
    (0x0400_0310, X, 0, DATES), // CertifiedTimestamp
    (0x0400_0402, X, 0, 0), // ReferencedDigitalSignatureSequence
    (0x0400_0403, X, 0, 0), // ReferencedSOPInstanceMACSequence
    (0x0400_0404, X, 0, 0), // MAC
    (0x0400_0550, X, 0, 0), // ModifiedAttributesSequence
    (0x0400_0551, X, 0, 0), // NonconformingModifiedAttributesSequence
    (0x0400_0552, X, 0, 0), // NonconformingDataElementValue
    (0x0400_0561, X, 0, 0), // OriginalAttributesSequence
    (0x0400_0562, D, 0, DATES), // AttributeModificationDateTime
    (0x0400_0563, D, DEVICE, 0), // ModifyingSystem
    (0x0400_0564, Z, INSTITUTION, 0), // SourceOfPreviousValues
    (0x0400_0565, D, 0, DESCRIPTORS), // ReasonForTheAttributeModification
    (0x0400_0600, X, 0, 0), // InstanceOriginStatus
    (0x2030_0020, X, 0, 0), // TextString
    (0x2100_0040, X, 0, DATES), // CreationDate
    (0x2100_0050, X, 0, DATES), // CreationTime
    (0x2100_0070, X, 0, DEVICE), // Originator
    (0x2100_0140, D, 0, DEVICE), // DestinationAE
    (0x2200_0002, XZ, 0, DESCRIPTORS), // LabelText
    (0x2200_0005, XZ, 0, 0), // BarcodeValue
    (0x3002_0121, X, 0, DESCRIPTORS), // PositionAcquisitionTemplateName
    (0x3002_0123, X, 0, DESCRIPTORS), // PositionAcquisitionTemplateDescription
    (0x3006_0002, D, 0, DESCRIPTORS), // StructureSetLabel
    (0x3006_0004, X, 0, DESCRIPTORS), // StructureSetName
    (0x3006_0006, X, 0, DESCRIPTORS), // StructureSetDescription
    (0x3006_0008, Z, 0, DATES), // StructureSetDate
    (0x3006_0009, Z, 0, DATES), // StructureSetTime
    (0x3006_0024, U, UIDS, 0), // ReferencedFrameOfReferenceUID
    (0x3006_0026, Z, 0, DESCRIPTORS), // ROIName
    (0x3006_0028, X, 0, DESCRIPTORS), // ROIDescription
    (0x3006_002D, X, 0, DATES), // ROIDateTime
    (0x3006_002E, X, 0, DATES), // ROIObservationDateTime
    (0x3006_0038, X, 0, DESCRIPTORS), // ROIGenerationDescription
    (0x3006_004D, X, 0, 0), // ROICreatorSequence
    (0x3006_004E, X, 0, 0), // ROIInterpreterSequence
    (0x3006_0085, X, 0, DESCRIPTORS), // ROIObservationLabel
    (0x3006_0088, X, 0, DESCRIPTORS), // ROIObservationDescription
    (0x3006_00A6, Z, 0, 0), // ROIInterpreter
    (0x3006_00C2, U, UIDS, 0), // RelatedFrameOfReferenceUID
    (0x3008_0024, D, 0, DATES), // TreatmentControlPointDate
    (0x3008_0025, D, 0, DATES), // TreatmentControlPointTime
    (0x3008_0054, XD, 0, DATES), // FirstTreatmentDate
    (0x3008_0056, XD, 0, DATES), // MostRecentTreatmentDate
    (0x3008_0105, XZ, DEVICE, 0), // SourceSerialNumber
    (0x3008_0162, D, 0, DATES), // SafePositionExitDate
    (0x3008_0164, D, 0, DATES), // SafePositionExitTime
    (0x3008_0166, D, 0, DATES), // SafePositionReturnDate
    (0x3008_0168, D, 0, DATES), // SafePositionReturnTime
    (0x3008_0250, XD, 0, DATES), // TreatmentDate
    (0x3008_0251, XD, 0, DATES), // TreatmentTime
    (0x300A_0002, D, 0, DESCRIPTORS), // RTPlanLabel
    (0x300A_0003, X, 0, DESCRIPTORS), // RTPlanName
    (0x300A_0004, X, 0, DESCRIPTORS), // RTPlanDescription
    (0x300A_0006, XD, 0, DATES), // RTPlanDate
    (0x300A_0007, XD, 0, DATES), // RTPlanTime
    (0x300A_000B, X, 0, DESCRIPTORS), // TreatmentSites
    (0x300A_000E, X, 0, DESCRIPTORS), // PrescriptionDescription
    (0x300A_0013, U, UIDS, 0), // DoseReferenceUID
    (0x300A_0016, X, 0, DESCRIPTORS), // DoseReferenceDescription
    (0x300A_0054, U, UIDS, 0), // TableTopPositionAlignmentUID
    (0x300A_0072, X, 0, DESCRIPTORS), // FractionGroupDescription
    (0x300A_0083, U, UIDS, 0), // ReferencedDoseReferenceUID
    (0x300A_00B2, XZ, DEVICE, 0), // TreatmentMachineName
    (0x300A_00C3, X, 0, DESCRIPTORS), // BeamDescription
    (0x300A_00DD, X, 0, DESCRIPTORS), // BolusDescription
    (0x300A_0196, X, 0, DESCRIPTORS), // FixationDeviceDescription
    (0x300A_01A6, X, 0, DESCRIPTORS), // ShieldingDeviceDescription
    (0x300A_01B2, X, 0, DESCRIPTORS), // SetupTechniqueDescription
    (0x300A_0216, X, DEVICE, 0), // SourceManufacturer
    (0x300A_022C, D, 0, DATES), // SourceStrengthReferenceDate
    (0x300A_022E, D, 0, DATES), // SourceStrengthReferenceTime
    (0x300A_02EB, X, 0, DESCRIPTORS), // CompensatorDescription
    (0x300A_0608, D, 0, DESCRIPTORS), // TreatmentPositionGroupLabel
    (0x300A_0609, U, UIDS, 0), // TreatmentPositionGroupUID
    (0x300A_0611, Z, 0, 0), // RTAccessoryHolderSlotID
    (0x300A_0615, Z, 0, 0), // RTAccessoryDeviceSlotID
    (0x300A_0619, D, 0, DESCRIPTORS), // RadiationDoseIdentificationLabel
    (0x300A_0623, D, 0, DESCRIPTORS), // RadiationDoseInVivoMeasurementLabel
    (0x300A_062A, D, 0, DESCRIPTORS), // RTToleranceSetLabel
    (0x300A_0650, U, UIDS, 0), // PatientSetupUID
    (0x300A_0676, X, 0, DESCRIPTORS), // EquipmentFrameOfReferenceDescription
    (0x300A_067C, D, 0, DESCRIPTORS), // RadiationGenerationModeLabel
    (0x300A_067D, Z, 0, DESCRIPTORS), // RadiationGenerationModeDescription
    (0x300A_0700, U, UIDS, 0), // TreatmentSessionUID
    (0x300A_0734, D, 0, DESCRIPTORS), // TreatmentToleranceViolationDescription
    (0x300A_0736, D, 0, DATES), // TreatmentToleranceViolationDateTime
    (0x300A_073A, D, 0, DATES), // RecordedRTControlPointDateTime
    (0x300A_0741, D, 0, DATES), // InterlockDateTime
    (0x300A_0742, D, 0, DESCRIPTORS), // InterlockDescription
    (0x300A_0760, D, 0, DATES), // OverrideDateTime
    (0x300A_0783, D, 0, DESCRIPTORS), // InterlockOriginDescription
    (0x300A_0785, U, UIDS, 0), // ReferencedTreatmentPositionGroupUID
    (0x300A_078E, X, 0, DESCRIPTORS), // PatientTreatmentPreparationProcedureParameterDescription
    (0x300A_0792, X, 0, DESCRIPTORS), // PatientTreatmentPreparationMethodDescription
    (0x300A_0794, X, 0, DESCRIPTORS), // PatientSetupPhotoDescription
    (0x300A_079A, X, 0, DESCRIPTORS), // DisplacementReferenceLabel
    (0x300C_0113, X, 0, DESCRIPTORS), // ReasonForOmissionDescription
    (0x300C_0127, D, DEVICE, DATES), // BeamHoldTransitionDateTime
    (0x300E_0004, Z, 0, DATES), // ReviewDate
    (0x300E_0005, Z, 0, DATES), // ReviewTime
    (0x300E_0008, XZ, 0, 0), // ReviewerName
    (0x3010_0006, U, UIDS, 0), // ConceptualVolumeUID
    (0x3010_000B, U, UIDS, 0), // ReferencedConceptualVolumeUID
    (0x3010_000F, Z, 0, DESCRIPTORS), // ConceptualVolumeCombinationDescription
    (0x3010_0013, U, UIDS, 0), // ConstituentConceptualVolumeUID
    (0x3010_0015, U, UIDS, 0), // SourceConceptualVolumeUID
    (0x3010_0017, Z, 0, DESCRIPTORS), // ConceptualVolumeDescription
    (0x3010_001B, Z, 0, 0), // DeviceAlternateIdentifier
    (0x3010_002D, D, DEVICE, 0), // DeviceLabel
    (0x3010_0031, U, UIDS, 0), // ReferencedFiducialsUID
    (0x3010_0033, D, 0, DESCRIPTORS), // UserContentLabel
    (0x3010_0034, D, 0, DESCRIPTORS), // UserContentLongLabel
    (0x3010_0035, D, 0, DESCRIPTORS), // EntityLabel
    (0x3010_0036, X, 0, DESCRIPTORS), // EntityName
    (0x3010_0037, X, 0, DESCRIPTORS), // EntityDescription
    (0x3010_0038, D, 0, DESCRIPTORS), // EntityLongLabel
    (0x3010_003B, U, UIDS, 0), // RTTreatmentPhaseUID
    (0x3010_0043, Z, DEVICE, 0), // ManufacturerDeviceIdentifier
    (0x3010_004C, XD, 0, DATES), // IntendedPhaseStartDate
    (0x3010_004D, XD, 0, DATES), // IntendedPhaseEndDate
    (0x3010_0054, D, 0, DESCRIPTORS), // RTPrescriptionLabel
    (0x3010_0056, XD, 0, DESCRIPTORS), // RTTreatmentApproachLabel
    (0x3010_005A, Z, 0, DESCRIPTORS), // RTPhysicianIntentNarrative
    (0x3010_005C, Z, 0, DESCRIPTORS), // ReasonForSuperseding
    (0x3010_0061, X, 0, DESCRIPTORS), // PriorTreatmentDoseDescription
    (0x3010_006E, U, UIDS, 0), // DosimetricObjectiveUID
    (0x3010_006F, U, UIDS, 0), // ReferencedDosimetricObjectiveUID
    (0x3010_0077, XD, 0, DESCRIPTORS), // TreatmentSite
    (0x3010_007A, Z, 0, DESCRIPTORS), // TreatmentTechniqueNotes
    (0x3010_007B, Z, 0, DESCRIPTORS), // PrescriptionNotes
    (0x3010_007F, Z, 0, DESCRIPTORS), // FractionationNotes
    (0x3010_0081, Z, 0, DESCRIPTORS), // PrescriptionNotesSequence
    (0x3010_0085, X, 0, DATES), // IntendedFractionStartTime
    (0x4000_0010, X, 0, 0), // Arbitrary
    (0x4000_4000, X, 0, 0), // TextComments
    (0x4008_0040, X, 0, 0), // ResultsID
    (0x4008_0042, X, 0, 0), // ResultsIDIssuer
    (0x4008_0100, X, 0, DATES), // InterpretationRecordedDate
    (0x4008_0101, X, 0, DATES), // InterpretationRecordedTime
    (0x4008_0102, X, 0, 0), // InterpretationRecorder
    (0x4008_0108, X, 0, DATES), // InterpretationTranscriptionDate
    (0x4008_0109, X, 0, DATES), // InterpretationTranscriptionTime
    (0x4008_010A, X, 0, 0), // InterpretationTranscriber
    (0x4008_010B, X, 0, DESCRIPTORS), // InterpretationText
    (0x4008_010C, X, 0, 0), // InterpretationAuthor
    (0x4008_0111, X, 0, 0), // InterpretationApproverSequence
    (0x4008_0112, X, 0, DATES), // InterpretationApprovalDate
    (0x4008_0113, X, 0, DATES), // InterpretationApprovalTime
    (0x4008_0114, X, 0, 0), // PhysicianApprovingInterpretation
    (0x4008_0115, X, 0, DESCRIPTORS), // InterpretationDiagnosisDescription
    (0x4008_0118, X, 0, 0), // ResultsDistributionListSequence
    (0x4008_0119, X, 0, 0), // DistributionName
    (0x4008_011A, X, 0, 0), // DistributionAddress
    (0x4008_0200, X, 0, 0), // InterpretationID
    (0x4008_0202, X, 0, 0), // InterpretationIDIssuer
    (0x4008_0300, X, 0, DESCRIPTORS), // Impressions
    (0x4008_4000, X, 0, DESCRIPTORS), // ResultsComments
    (0xFFFA_FFFA, X, 0, 0), // DigitalSignaturesSequence
    (0xFFFC_FFFC, X, 0, 0), // DataSetTrailingPadding
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_table_is_sorted_and_finds_what_it_names() {
        assert!(TABLE.len() > 600, "{}", TABLE.len());
        assert!(TABLE.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(row(0x0010_0010).unwrap().1, Z, "Patient's Name");
        assert_eq!(row(0x0008_0018).unwrap(), &(0x0008_0018, U, UIDS, 0));
        assert_eq!(row(0x0028_0010), None, "Rows");
    }
}
